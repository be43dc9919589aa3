//! Says whether there is Wasmer for the processor: Cranelift has code for these only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_wasmer)");
    let processor = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if ["x86_64", "aarch64", "riscv64"].contains(&processor.as_str()) {
        println!("cargo::rustc-cfg=has_wasmer");
    }
}
