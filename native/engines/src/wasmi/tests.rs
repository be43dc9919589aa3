//! What is wasmi's own.

use wasmi::{CompilationMode, Instance, Module, Store};

use super::compile::{MAGIC, compile, engine};
use crate::tests::STACK_BYTES;

/// The fuel that a call of a function with these locals takes.
fn fuel(locals: &str) -> u64 {
    const FUEL: u64 = 1_000_000;
    let wat = format!(r#"(module (func (export "run") {locals}))"#);
    let artifact = compile(&wat::parse_str(wat).unwrap()).unwrap();
    let engine = engine(STACK_BYTES, CompilationMode::Eager);
    let module = Module::new(&engine, &artifact[MAGIC.len() + 1..]).unwrap();
    let mut store = Store::new(&engine, ());
    store.set_fuel(FUEL).unwrap();
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_func(&store, "run").unwrap();
    run.call(&mut store, &[], &mut []).unwrap();
    FUEL - store.get_fuel().unwrap()
}

/// Otherwise a loop of such calls would run for long between two looks at the clock.
#[test]
fn a_call_costs_fuel_for_the_locals_that_it_sets_to_zero() {
    let least = fuel("");
    for (kind, count, bytes) in
        [("i32", 100, 800), ("i64", 1000, 8000), ("i64", 15_000, 120_000), ("v128", 7_500, 120_000)]
    {
        let taken = fuel(&format!("(local{})", format!(" {kind}").repeat(count))) - least;
        // As for what bulk operations move; at most one `nop` less.
        let expected = bytes / 64;
        assert!(taken <= expected && taken + 16 > expected, "{count} {kind}: {taken}");
    }
}
