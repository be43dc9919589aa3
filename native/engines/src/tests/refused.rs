//! What is no plugin, or no artifact.

use super::*;

#[test]
fn what_is_not_offered_is_an_error() {
    let imports = r#"(import "env" "method" (func (param i32 i32) (result i64)))"#;
    for engine in ENGINES {
        assert!(engine.start(imports, "i64.const 0", &[]).is_err());
        let other = Signature { params: vec![Kind::I32], result: Some(Kind::I64) };
        assert!(engine.start(imports, "i64.const 0", &[other]).is_err());
    }
}

#[test]
fn an_export_that_is_no_function_of_the_abi_is_an_error() {
    for engine in ENGINES {
        for export in [
            r#"(func (export "other") (param i64))"#,
            r#"(func (export "other") (param f32))"#,
            r#"(func (export "other") (param i32) (result i64) i64.const 0)"#,
            r#"(func (export "other") (param i32 i32) (result i32) i32.const 0)"#,
            r#"(func (export "other") (result i32) i32.const 0)"#,
            r#"(func (export "other") (result i64 i64) i64.const 0 i64.const 0)"#,
            r#"(global (export "other") i64 (i64.const 0))"#,
        ] {
            let loaded = engine.load(&format!("(module {ABI} {export})"));
            let said = loaded.instantiate(wanted(&[], &["other".to_owned()], 4 * PAGE, LONG)).err();
            let expected = "the export other is no function of the ABI";
            assert_eq!(said.as_deref(), Some(expected), "{engine:?}: {export}");
        }
    }
}

#[test]
fn modules_that_are_not_valid_are_refused() {
    let tables = "(table 1 funcref)".repeat(5);
    let tables = wat::parse_str(format!("(module {tables})")).unwrap();
    let memories = wat::parse_str("(module (memory 1) (memory 1))").unwrap();
    for engine in ENGINES {
        for wasm in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0\x05\x03\x01\x04\x01", &tables, &memories]
        {
            let refused = engine.compile(wasm);
            assert!(matches!(refused, Err(Failure::Module(_))), "{engine:?}: {wasm:?}");
        }
    }
}

#[test]
fn a_file_that_is_no_artifact_is_refused() {
    let path = file();
    for engine in ENGINES {
        for content in [&b""[..], b"\x7fELF", &[0; 4096], wasmi::compile::MAGIC] {
            fs::write(&path, content).unwrap();
            assert!(engine.read(&path).is_err());
        }
        fs::remove_file(&path).unwrap();
        assert!(engine.read(&path).is_err());
    }
}
