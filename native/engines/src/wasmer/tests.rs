//! What is Wasmer's own: rations, and the memory that a module begins with.

use std::fs;

use super::compile::{compile, compile_by};
use super::guest::Loaded;
use super::meter;
use super::target::{KINDS, Kind};
use crate::guest::{Running, Stop, exchange};
use crate::tests::{ABI, Engine, LONG, PAGE, STACK_BYTES, exports, file, made};

fn configure(running: &mut Box<dyn Running>) -> Result<(Vec<u8>, bool), Stop> {
    running.begin(LONG);
    exchange(running.as_mut(), "plugin_configure", b"request", 1 << 20, 4096)
}

#[test]
fn rations_are_refilled_without_a_trace() {
    let turns = 10 * meter::RATION;
    let body = format!(
        "(local i32) (loop (br_if 0 (i32.lt_u (local.tee 2 (i32.add (local.get 2) (i32.const 1)))
                                              (i32.const {turns}))))
         (i64.extend_i32_u (local.get 2))"
    );
    let wat = format!(
        r#"(module {ABI} (func (export "plugin_configure") (param i32 i32) (result i64) {body}))"#
    );
    let loaded = Engine::Wide.load(&wat);
    let mut running = made(loaded.as_ref(), &[], &exports(), 4 * PAGE, LONG).unwrap();
    for _ in 0..3 {
        running.begin(LONG);
        assert_eq!(running.run("plugin_configure", 0, 0).unwrap(), turns as u64);
    }
}

const DATA: &str = r#"
  (data (i32.const 131067) "over the edge of a page")
  (data (i32.const 131070) "THE")
  (data (i32.const 720000) "far")
  (data (i32.const 65536) "\00\00")
  (data (i32.const 917502) "end")"#;

fn with_data(memory: &str, data: &str) -> String {
    ABI.replace("(memory (export \"memory\") 2)", memory) + data
}

#[test]
fn data_lies_where_the_module_says_in_every_instance() {
    for engine in [Engine::Wide, Engine::Narrow] {
        let body = r#"(func (export "plugin_configure") (param i32 i32) (result i64)
            (drop (memory.grow (i32.const 2))) i64.const 0)"#;
        let memory = r#"(memory (export "memory") 15)"#;
        let loaded = engine.load(&format!("(module {} {body})", with_data(memory, DATA)));
        for _ in 0..2 {
            let mut running = made(loaded.as_ref(), &[], &exports(), 40 * PAGE, LONG).unwrap();
            for _ in 0..2 {
                assert_eq!(running.read(131_066, 26).unwrap(), b"\0oveTHEhe edge of a page\0\0");
                assert_eq!(running.read(719_999, 5).unwrap(), b"\0far\0");
                assert_eq!(running.read(917_502, 3).unwrap(), b"end");
                configure(&mut running).unwrap(); // grows, and moves where it is narrow
            }
            running.write(720_000, b"own").unwrap(); // nobody else's
            assert_eq!(running.memory_bytes(), 19 * PAGE);
        }
    }
}

#[test]
fn data_that_is_not_plain_stays_in_the_module() {
    let start = |memory: &str, data: &str, body: &str| {
        let wat = format!(
            r#"(module {} (func (export "plugin_configure") (param i32 i32) (result i64) {body}))"#,
            with_data(memory, data)
        );
        let loaded = Engine::Wide.load(&wat);
        made(loaded.as_ref(), &[], &exports(), 40 * PAGE, LONG)
    };
    let memory = r#"(memory (export "memory") 2)"#;
    let stop = start(memory, r#"(data (i32.const 131070) "out")"#, "i64.const 0").err().unwrap();
    assert!(matches!(&stop, Stop::Trap { says, .. } if says.contains("out of bounds")), "{stop:?}");
    let passive = r#"(data $later "later") (data (i32.const 100) "now")"#;
    let init = "(memory.init $later (i32.const 200) (i32.const 0) (i32.const 5)) i64.const 0";
    let mut running = start(memory, passive, init).unwrap();
    configure(&mut running).unwrap();
    assert_eq!(running.read(200, 5).unwrap(), b"later");
    assert_eq!(running.read(100, 3).unwrap(), b"now");
    let added = r#"(data (i32.add (i32.const 100) (i32.const 1)) "now")"#;
    assert_eq!(start(memory, added, "i64.const 0").unwrap().read(101, 3).unwrap(), b"now");
}

#[test]
fn a_segment_that_was_taken_out_is_dropped_as_all_are() {
    let memory = r#"(memory (export "memory") 2)"#;
    let body = "(memory.init $text (i32.const 9) (i32.const 0) (i32.const 1)) i64.const 0";
    let wat = format!(
        r#"(module {} (func (export "plugin_configure") (param i32 i32) (result i64) {body}))"#,
        with_data(memory, r#"(data $text (i32.const 100) "text")"#)
    );
    let loaded = Engine::Wide.load(&wat);
    let mut running = made(loaded.as_ref(), &[], &exports(), 4 * PAGE, LONG).unwrap();
    assert_eq!(running.read(100, 4).unwrap(), b"text");
    let stop = configure(&mut running).unwrap_err();
    assert!(matches!(&stop, Stop::Trap { says, .. } if says.contains("out of bounds")), "{stop:?}");
}

#[test]
fn an_image_that_is_damaged_is_refused() {
    let memory = r#"(memory (export "memory") 15)"#;
    let wat = format!("(module {})", with_data(memory, DATA));
    let whole = compile(&wat::parse_str(wat).unwrap(), true, None).unwrap();
    let path = file();
    let count = whole.len() - 20;
    for change in [count, count + 4, count + 6] {
        let mut damaged = whole.clone();
        damaged[change] ^= 5;
        fs::write(&path, damaged).unwrap();
        assert!(Loaded::from_file(&path, STACK_BYTES).is_err());
    }
    fs::write(&path, whole).unwrap();
    assert!(Loaded::from_file(&path, STACK_BYTES).is_ok());
    fs::remove_file(&path).unwrap();
}

/// Of every part that an image has: imports, tables, traps, data, operations that the host does.
const ALL_PARTS: &str = r#"
  (import "env" "add" (func $add (param i32 i32) (result i32)))
  (import "env" "wide" (func $wide (param i64) (result i64)))
  (table 4 funcref) (elem (i32.const 0) $one $two)
  (type $unary (func (param i32) (result i32)))
  (func $one (type $unary) (i32.div_u (i32.const 7) (local.get 0)))
  (func $two (type $unary) (call $add (local.get 0) (i32.load offset=8 (local.get 0))))
  (func $float (param f64 f32) (result f64)
    (f64.nearest (f64.add (f64.floor (local.get 0)) (f64.promote_f32 (f32.trunc (local.get 1))))))
  (func (export "plugin_configure") (param i32 i32) (result i64)
    (memory.fill (i32.const 300) (i32.const 7) (local.get 1))
    (drop (memory.grow (i32.const 1)))
    (drop (call $float (f64.const 1.5) (f32.const 2.5)))
    (call $wide (i64.extend_i32_u (call_indirect (type $unary) (local.get 0) (local.get 1)))))"#;

#[test]
fn code_for_this_processor_is_the_same_whoever_links_it() {
    let here = Kind::here();
    assert!(here.is_some());
    let memory = r#"(memory (export "memory") 15)"#;
    for wat in [
        format!("(module {})", with_data(memory, DATA)),
        format!("(module {ALL_PARTS} {})", with_data(memory, DATA)),
    ] {
        let wasm = wat::parse_str(wat).unwrap();
        for wide in [true, false] {
            let by_wasmer = compile_by(&wasm, wide, here, false).unwrap();
            assert!(by_wasmer == compile_by(&wasm, wide, here, true).unwrap());
        }
    }
}

#[test]
fn there_is_code_for_every_kind_of_processor() {
    let wat =
        format!("(module {ALL_PARTS} {})", with_data(r#"(memory (export "memory") 15)"#, DATA));
    let wasm = wat::parse_str(wat).unwrap();
    for kind in &KINDS {
        let made = compile(&wasm, true, Some(kind)).unwrap();
        assert_eq!(made[18..20], kind.machine.to_le_bytes());
        let path = file();
        fs::write(&path, made).unwrap();
        assert_eq!(Loaded::from_file(&path, STACK_BYTES).is_ok(), kind.is_here(), "{}", kind.name);
        fs::remove_file(&path).unwrap();
    }
}
