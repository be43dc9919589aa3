//! What a guest may take, how it ends, what its host sees.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasmer::{FunctionType, Type};

use crate::compile::{Failure, compile};
use crate::guest::{Caller, Host, Loaded, Running, Stop};
use crate::meter;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);
const STACK_BYTES: usize = 256 << 10;
const PAGE: u64 = 65536;
const FUEL: &str = "fuel";

/// The ABI's own functions; a test adds what `plugin_configure` does.
const ABI: &str = r#"
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 4096))
  (func $malloc (export "malloc") (param i32) (result i32)
    global.get $top
    (global.set $top (i32.add (global.get $top) (local.get 0))))
  (func (export "free") (param i32)
    (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1))))
  (func (export "plugin_api_version") (result i64) i64.const 1)
  (func (export "plugin_echo") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32))
            (i64.extend_i32_u (local.get 1))))"#;

/// Adds its arguments; 13 it refuses; for 1000 it asks the guest for memory.
struct Adder;

impl Host for Adder {
    fn call(
        caller: &mut Caller<'_, Self>,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, Box<dyn Error + Send + Sync>> {
        match arguments.first() {
            Some(13) => Err("unlucky".into()),
            Some(1000) => {
                let at = caller.call("malloc", 8, 0).map_err(|stop| format!("{stop:?}"))? as u32;
                caller.write(at, b"borrowed").map_err(|stop| format!("{stop:?}"))?;
                assert_eq!(caller.read(at, 8).unwrap(), b"borrowed");
                assert!(caller.read(u32::MAX, 2).is_err());
                Ok(u64::from(at) << 32 | 8)
            }
            _ => Ok(arguments.iter().sum::<u64>() + place as u64),
        }
    }
}

fn file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("edge-agent-wasmer-{}-{number}", std::process::id()))
}

fn load(wat: &str, wide: bool) -> Loaded {
    let artifact = compile(&wat::parse_str(wat).unwrap(), wide).unwrap();
    let path = file();
    fs::write(&path, artifact).unwrap();
    let loaded = Loaded::from_file(&path, STACK_BYTES).unwrap();
    fs::remove_file(path).unwrap(); // what is mapped stays
    loaded
}

fn exports() -> Vec<String> {
    ["malloc", "free", "plugin_api_version", "plugin_echo", "plugin_configure"]
        .map(str::to_owned)
        .to_vec()
}

fn method() -> FunctionType {
    FunctionType::new([Type::I32, Type::I32], [Type::I64])
}

fn start(imports: &str, body: &str, kinds: &[FunctionType]) -> Result<Running<Adder>, Stop> {
    let configure =
        format!(r#"(func (export "plugin_configure") (param i32 i32) (result i64) {body})"#);
    let loaded = load(&format!("(module {imports} {ABI} {configure})"), true);
    Running::new(&loaded, Adder, kinds, &exports(), FUEL, 4 * PAGE, LONG).unwrap()
}

fn configure(running: &mut Running<Adder>, time: Duration) -> Result<(Vec<u8>, bool), Stop> {
    running.exchange("plugin_configure", b"request", 1 << 20, 4096, time)
}

#[test]
fn a_whole_call_allocates_writes_reads_and_frees_twice() {
    for wide in [true, false] {
        let loaded = load(
            &format!(
                r#"(module {ABI} (func (export "plugin_configure") (param i32 i32) (result i64) i64.const 0))"#
            ),
            wide,
        );
        let mut running =
            Running::new(&loaded, Adder, &[], &exports(), FUEL, 4 * PAGE, LONG).unwrap().unwrap();
        let echoed = running.exchange("plugin_echo", b"hello", 5, 0, LONG).unwrap();
        assert_eq!(echoed, (b"hello".to_vec(), false));
        assert_eq!(running.read(16, 4).unwrap(), 2u32.to_le_bytes());
        assert_eq!(configure(&mut running, LONG).unwrap(), (Vec::new(), false));
        assert_eq!(running.read(16, 4).unwrap(), 3u32.to_le_bytes());
        assert_eq!(running.memory_bytes(), 2 * PAGE);
        let stop = running.exchange("plugin_echo", b"hello", 4, 0, LONG).unwrap_err();
        assert!(matches!(stop, Stop::Reply { size: 5, .. }), "{stop:?}");
    }
}

#[test]
fn an_error_is_a_text_cut_to_its_limit() {
    let body = "(i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32))
                        (i64.const 0x80000007))";
    let mut running = start("", body, &[]).unwrap();
    let (text, failed) = running.exchange("plugin_configure", b"request", 1, 3, LONG).unwrap();
    assert_eq!((text.as_slice(), failed), (&b"req"[..], true));
}

#[test]
fn traps_have_the_agents_names_and_leave_other_instances_alone() {
    for (body, expected) in [
        ("unreachable", "unreachable executed"),
        ("(i64.load (i32.const -1))", "memory access out of bounds"),
        ("(i64.div_u (i64.const 1) (i64.const 0))", "integer division by zero"),
        ("(call 4 (local.get 0) (local.get 1))", "call stack exhausted"),
    ] {
        let mut other = start("", "i64.const 0", &[]).unwrap();
        let mut running = start("", body, &[]).unwrap();
        let stop = configure(&mut running, LONG).unwrap_err();
        assert!(matches!(&stop, Stop::Trap { says, .. } if says == expected), "{stop:?}");
        assert!(configure(&mut other, LONG).is_ok());
    }
}

#[test]
fn what_never_ends_is_stopped() {
    for body in [
        "(loop (br 0)) i64.const 0",
        "(loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (br 0)) i64.const 0",
        "(loop (memory.grow (i32.const 0)) drop (br 0)) i64.const 0",
    ] {
        let mut running = start("", body, &[]).unwrap();
        let stop = configure(&mut running, SHORT).unwrap_err();
        assert!(matches!(stop, Stop::Time { .. }), "{stop:?}");
    }
}

#[test]
fn a_start_function_is_within_the_limits() {
    let wat = format!("(module {ABI} (func $start (loop (br 0))) (start $start))");
    let loaded = load(&wat, true);
    let made = Running::new(&loaded, Adder, &[], &[], FUEL, 4 * PAGE, SHORT).unwrap();
    assert!(matches!(made.err().unwrap(), Stop::Time { .. }));
}

#[test]
fn rations_are_refilled_without_a_trace() {
    let turns = 10 * meter::RATION;
    let body = format!(
        "(local i32) (loop (br_if 0 (i32.lt_u (local.tee 2 (i32.add (local.get 2) (i32.const 1)))
                                              (i32.const {turns}))))
         (i64.extend_i32_u (local.get 2))"
    );
    let mut running = start("", &body, &[]).unwrap();
    for _ in 0..3 {
        assert_eq!(running.call("plugin_configure", 0, 0, LONG).unwrap(), turns as u64);
    }
}

#[test]
fn the_modules_own_counter_is_set_and_read() {
    let mut running = start("", "i64.const 0", &[]).unwrap();
    assert_eq!((running.fuel(), running.set_fuel(1)), (None, false));
    let counter = r#"(global $fuel (export "fuel") (mut i64) (i64.const 7))"#;
    let body = "(global.set $fuel (i64.sub (global.get $fuel) (i64.const 5))) i64.const 0";
    let mut running = start(counter, body, &[]).unwrap();
    assert_eq!((running.fuel(), running.set_fuel(3)), (Some(7), true));
    configure(&mut running, LONG).unwrap();
    assert_eq!(running.fuel(), Some(-2));
}

#[test]
fn memory_and_tables_stop_at_their_limits() {
    let body = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                (i64.extend_i32_u (memory.size))";
    let mut running = start("", body, &[]).unwrap();
    assert_eq!(running.call("plugin_configure", 0, 0, LONG).unwrap(), 4);
    let table = "(table $t 1 funcref)";
    let body = "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1000))
                                       (i32.const -1))))
                (i64.extend_i32_u (table.size $t))";
    let mut running = start(table, body, &[]).unwrap();
    let size = running.call("plugin_configure", 0, 0, LONG).unwrap();
    assert!((99_001..=100_000).contains(&size), "{size}");

    let loaded = load("(module (memory 5))", true);
    let stop = Running::new(&loaded, Adder, &[], &[], FUEL, 4 * PAGE, LONG).unwrap().err().unwrap();
    assert!(matches!(&stop, Stop::Trap { says, .. } if says.contains("memory")), "{stop:?}");
}

#[test]
fn the_host_is_called_and_may_call_back() {
    let imports = r#"
        (import "env" "method" (func $method (param i32 i32) (result i64)))
        (import "env" "other" (func $other (param i64) (result i32)))"#;
    let kinds = [method(), FunctionType::new([Type::I64], [Type::I32])];
    let body = |code: &str| start(imports, code, &kinds).unwrap();

    let mut running = body("(call $method (i32.const -1) (i32.const 2))");
    let sum = running.call("plugin_configure", 0, 0, LONG).unwrap();
    assert_eq!(sum, (1 << 32) + 1, "arguments are unsigned");
    let mut running = body("(i64.extend_i32_u (call $other (i64.const 40)))");
    assert_eq!(running.call("plugin_configure", 0, 0, LONG).unwrap(), 41);
    let mut running = body("(call $method (i32.const 1000) (i32.const 0))");
    assert_eq!(configure(&mut running, LONG).unwrap(), (b"borrowed".to_vec(), false));
    let mut running = body("(call $method (i32.const 13) (i32.const 0))");
    let stop = configure(&mut running, LONG).unwrap_err();
    assert!(
        matches!(&stop, Stop::Host { place: 0, error, .. } if error.to_string() == "unlucky"),
        "{stop:?}"
    );
}

#[test]
fn pointers_outside_are_told_with_the_size_of_the_memory() {
    let body = "(i64.const 0xfffffff000000020)";
    let mut running = start("", body, &[]).unwrap();
    let stop = configure(&mut running, LONG).unwrap_err();
    assert!(
        matches!(
            stop,
            Stop::Outside { action: "read", pointer: 0xffff_fff0, size: 32, held: 131_072 }
        ),
        "{stop:?}"
    );
}

#[test]
fn an_instance_moves_between_threads_and_outlives_its_module() {
    let mut running = start("", "i64.const 0", &[]).unwrap();
    for _ in 0..4 {
        running = std::thread::spawn(move || {
            let echoed = running.exchange("plugin_echo", b"x", 1, 1, LONG).unwrap();
            assert_eq!(echoed.0, b"x");
            running
        })
        .join()
        .unwrap();
    }
}

#[test]
fn what_is_not_offered_is_an_error() {
    let imports = r#"(import "env" "method" (func (param i32 i32) (result i64)))"#;
    assert!(start(imports, "i64.const 0", &[]).is_err());
    let other = FunctionType::new([Type::I32], [Type::I64]);
    assert!(start(imports, "i64.const 0", &[other]).is_err());
}

#[test]
fn modules_that_are_not_valid_are_refused() {
    for wasm in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0\x05\x03\x01\x04\x01"] {
        assert!(matches!(compile(wasm, true), Err(Failure::Module(_))));
    }
    let tables = wat::parse_str(
        "(module (table 1 funcref) (table 1 funcref) (table 1 funcref)
        (table 1 funcref) (table 1 funcref))",
    )
    .unwrap();
    assert!(matches!(compile(&tables, true), Err(Failure::Module(_))));
}

#[test]
fn a_file_that_is_no_artifact_is_refused() {
    let path = file();
    for content in [&b""[..], b"\x7fELF", &[0; 4096]] {
        fs::write(&path, content).unwrap();
        assert!(Loaded::from_file(&path, STACK_BYTES).is_err());
    }
    fs::remove_file(&path).unwrap();
    assert!(Loaded::from_file(&path, STACK_BYTES).is_err());
}

// ---- the memory that a module begins with ----

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
    for wide in [true, false] {
        let body = r#"(func (export "plugin_configure") (param i32 i32) (result i64)
            (drop (memory.grow (i32.const 2))) i64.const 0)"#;
        let memory = r#"(memory (export "memory") 15)"#;
        let loaded = load(&format!("(module {} {body})", with_data(memory, DATA)), wide);
        for _ in 0..2 {
            let mut running = Running::new(&loaded, Adder, &[], &exports(), FUEL, 40 * PAGE, LONG)
                .unwrap()
                .unwrap();
            for _ in 0..2 {
                assert_eq!(running.read(131_066, 26).unwrap(), b"\0oveTHEhe edge of a page\0\0");
                assert_eq!(running.read(719_999, 5).unwrap(), b"\0far\0");
                assert_eq!(running.read(917_502, 3).unwrap(), b"end");
                configure(&mut running, LONG).unwrap(); // grows, and moves where it is narrow
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
        let loaded = load(&wat, true);
        Running::new(&loaded, Adder, &[], &exports(), FUEL, 40 * PAGE, LONG).unwrap()
    };
    let memory = r#"(memory (export "memory") 2)"#;
    let stop = start(memory, r#"(data (i32.const 131070) "out")"#, "i64.const 0").err().unwrap();
    assert!(matches!(&stop, Stop::Trap { says, .. } if says.contains("out of bounds")), "{stop:?}");
    let passive = r#"(data $later "later") (data (i32.const 100) "now")"#;
    let init = "(memory.init $later (i32.const 200) (i32.const 0) (i32.const 5)) i64.const 0";
    let mut running = start(memory, passive, init).unwrap();
    configure(&mut running, LONG).unwrap();
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
    let loaded = load(&wat, true);
    let mut running =
        Running::new(&loaded, Adder, &[], &exports(), FUEL, 4 * PAGE, LONG).unwrap().unwrap();
    assert_eq!(running.read(100, 4).unwrap(), b"text");
    let stop = configure(&mut running, LONG).unwrap_err();
    assert!(matches!(&stop, Stop::Trap { says, .. } if says.contains("out of bounds")), "{stop:?}");
}

#[test]
fn an_image_that_is_damaged_is_refused() {
    let memory = r#"(memory (export "memory") 15)"#;
    let wat = format!("(module {})", with_data(memory, DATA));
    let whole = compile(&wat::parse_str(wat).unwrap(), true).unwrap();
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
