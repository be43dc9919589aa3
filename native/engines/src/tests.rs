//! What a guest may take, how it ends, what its host sees: on each engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::guest::{
    Failure, Guest, Host, HostError, Kind, Loaded, Running, Signature, Stop, Wanted, exchange,
};
#[cfg(has_wasmer)]
use crate::wasmer;
use crate::wasmi;

pub const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);
pub const STACK_BYTES: usize = 256 << 10;
pub const PAGE: u64 = 65536;

/// The ABI's own functions; a test adds what `plugin_configure` does.
pub const ABI: &str = r#"
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

/// Adds its arguments; 13 it refuses, 14 it panics at; for 1000 it asks the guest for memory.
struct Adder;

impl Host for Adder {
    fn call(
        &self,
        guest: &mut dyn Guest,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, HostError> {
        match arguments.first() {
            Some(13) => Err("unlucky".into()),
            Some(14) => panic!("beside itself with {}", arguments.len()),
            // What the guest runs calls the host in turn.
            Some(1014) => match guest.run("plugin_configure", 14, 0) {
                Err(Stop::Host { error, .. }) => Err(format!("within: {error}").into()),
                other => Ok(u64::from(other.is_ok())),
            },
            Some(1000) => {
                let at = guest.run("malloc", 8, 0).map_err(|stop| format!("{stop:?}"))? as u32;
                guest.write(at, b"borrowed").map_err(|stop| format!("{stop:?}"))?;
                assert_eq!(guest.read(at, 8).unwrap(), b"borrowed");
                assert!(guest.read(u32::MAX, 2).is_err());
                Ok(u64::from(at) << 32 | 8)
            }
            _ => Ok(arguments.iter().sum::<u64>() + place as u64),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Engine {
    #[cfg(has_wasmer)]
    Wide,
    #[cfg(has_wasmer)]
    Narrow,
    Wasmi,
}

#[cfg(has_wasmer)]
const ENGINES: [Engine; 3] = [Engine::Wide, Engine::Narrow, Engine::Wasmi];
#[cfg(not(has_wasmer))]
const ENGINES: [Engine; 1] = [Engine::Wasmi];

impl Engine {
    fn compile(self, wasm: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            #[cfg(has_wasmer)]
            Self::Wide => wasmer::compile::compile(wasm, true, None),
            #[cfg(has_wasmer)]
            Self::Narrow => wasmer::compile::compile(wasm, false, None),
            Self::Wasmi => wasmi::compile::compile(wasm),
        }
    }

    fn read(self, path: &Path) -> Result<Box<dyn Loaded>, String> {
        Ok(match self {
            #[cfg(has_wasmer)]
            Self::Wide | Self::Narrow => {
                Box::new(wasmer::guest::Loaded::from_file(path, STACK_BYTES)?)
            }
            Self::Wasmi => Box::new(wasmi::guest::Loaded::from_file(path, STACK_BYTES)?),
        })
    }

    pub fn load(self, wat: &str) -> Box<dyn Loaded> {
        let path = file();
        fs::write(&path, self.compile(&wat::parse_str(wat).unwrap()).unwrap()).unwrap();
        let loaded = self.read(&path).unwrap();
        fs::remove_file(path).unwrap(); // what is mapped stays
        loaded
    }

    fn start(self, imports: &str, body: &str, kinds: &[Signature]) -> Made {
        let configure =
            format!(r#"(func (export "plugin_configure") (param i32 i32) (result i64) {body})"#);
        let loaded = self.load(&format!("(module {imports} {ABI} {configure})"));
        made(loaded.as_ref(), kinds, &exports(), 4 * PAGE, LONG)
    }
}

type Made = Result<Box<dyn Running>, Stop>;

pub fn made(
    loaded: &dyn Loaded,
    imports: &[Signature],
    exports: &[String],
    memory_bytes: u64,
    time: Duration,
) -> Made {
    loaded.instantiate(wanted(imports, exports, memory_bytes, time)).unwrap()
}

fn wanted(imports: &[Signature], exports: &[String], memory_bytes: u64, time: Duration) -> Wanted {
    Wanted {
        host: Arc::new(Adder),
        imports: imports.to_vec(),
        exports: exports.to_vec(),
        fuel: "fuel".to_owned(),
        memory_bytes,
        time,
    }
}

pub fn file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("edge-agent-engines-{}-{number}", std::process::id()))
}

pub fn exports() -> Vec<String> {
    ["malloc", "free", "plugin_api_version", "plugin_echo", "plugin_configure"]
        .map(str::to_owned)
        .to_vec()
}

fn method() -> Signature {
    Signature { params: vec![Kind::I32, Kind::I32], result: Some(Kind::I64) }
}

type Exchanged = Result<(Vec<u8>, bool), Stop>;

fn configure(running: &mut Box<dyn Running>, time: Duration) -> Exchanged {
    running.begin(time);
    exchange(running.as_mut(), "plugin_configure", b"request", 1 << 20, 4096)
}

fn value(running: &mut Box<dyn Running>) -> u64 {
    running.begin(LONG);
    running.run("plugin_configure", 0, 0).unwrap()
}

#[test]
fn a_whole_call_allocates_writes_reads_and_frees_twice() {
    for engine in ENGINES {
        let mut running = engine.start("", "i64.const 0", &[]).unwrap();
        running.begin(LONG);
        let echoed = exchange(running.as_mut(), "plugin_echo", b"hello", 5, 0).unwrap();
        assert_eq!(echoed, (b"hello".to_vec(), false));
        assert_eq!(running.read(16, 4).unwrap(), 2u32.to_le_bytes());
        assert_eq!(configure(&mut running, LONG).unwrap(), (Vec::new(), false));
        assert_eq!(running.read(16, 4).unwrap(), 3u32.to_le_bytes());
        assert_eq!(running.memory_bytes(), 2 * PAGE);
        let stop = exchange(running.as_mut(), "plugin_echo", b"hello", 4, 0).unwrap_err();
        assert!(matches!(stop, Stop::Reply { size: 5, .. }), "{engine:?}: {stop:?}");
    }
}

#[test]
fn an_error_is_a_text_cut_to_its_limit() {
    let body = "(i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32))
                        (i64.const 0x80000007))";
    for engine in ENGINES {
        let mut running = engine.start("", body, &[]).unwrap();
        running.begin(LONG);
        let (text, failed) =
            exchange(running.as_mut(), "plugin_configure", b"request", 1, 3).unwrap();
        assert_eq!((text.as_slice(), failed), (&b"req"[..], true));
    }
}

#[test]
fn traps_have_the_agents_names_and_leave_other_instances_alone() {
    for engine in ENGINES {
        for (body, expected) in [
            ("unreachable", "unreachable executed"),
            ("(i64.load (i32.const -1))", "memory access out of bounds"),
            ("(i64.div_u (i64.const 1) (i64.const 0))", "integer division by zero"),
            ("(call 4 (local.get 0) (local.get 1))", "call stack exhausted"),
        ] {
            let mut other = engine.start("", "i64.const 0", &[]).unwrap();
            let mut running = engine.start("", body, &[]).unwrap();
            let stop = configure(&mut running, LONG).unwrap_err();
            assert!(
                matches!(&stop, Stop::Trap { says, .. } if says == expected),
                "{engine:?}: {stop:?}"
            );
            assert!(configure(&mut other, LONG).is_ok());
        }
    }
}

#[test]
fn what_never_ends_is_stopped() {
    let straight = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 131072))".repeat(3000);
    for engine in ENGINES {
        for body in [
            "(loop (br 0)) i64.const 0",
            "(loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (br 0)) i64.const 0",
            "(loop (memory.grow (i32.const 0)) drop (br 0)) i64.const 0",
            &format!("(loop {straight} (br 0)) i64.const 0"),
        ] {
            let mut running = engine.start("", body, &[]).unwrap();
            let stop = configure(&mut running, SHORT).unwrap_err();
            assert!(matches!(stop, Stop::Time { .. }), "{engine:?}: {stop:?}");
        }
    }
}

#[test]
fn a_guest_that_was_paused_goes_on_with_what_it_had() {
    // More turns than fit one slice of fuel, with a call of the host in each thousandth.
    let imports = r#"(import "env" "method" (func $method (param i32 i32) (result i64)))"#;
    let body = "(local $turn i32) (local $sum i64)
        (loop
          (if (i32.eqz (i32.rem_u (local.get $turn) (i32.const 1000)))
            (then (local.set $sum
              (i64.add (local.get $sum) (call $method (i32.const 1) (i32.const 2))))))
          (br_if 0 (i32.lt_u (local.tee $turn (i32.add (local.get $turn) (i32.const 1)))
                             (i32.const 1000000))))
        (local.get $sum)";
    for engine in ENGINES {
        let mut running = engine.start(imports, body, &[method()]).unwrap();
        for _ in 0..2 {
            assert_eq!(value(&mut running), 3000, "{engine:?}");
        }
    }
}

#[test]
fn a_start_function_is_within_the_limits() {
    for engine in ENGINES {
        for exported in ["", r#"(export "begin" (func $start))"#] {
            let wat =
                format!("(module {ABI} (func $start (loop (br 0))) {exported} (start $start))");
            let stop = made(engine.load(&wat).as_ref(), &[], &[], 4 * PAGE, SHORT).err().unwrap();
            assert!(matches!(stop, Stop::Time { .. }), "{engine:?}: {stop:?}");
        }
        // Without any export of the module's own, and with an effect.
        let wat = r#"(module (memory (export "memory") 1)
            (func $start (i32.store (i32.const 8) (i32.const 7))) (start $start))"#;
        let running = made(engine.load(wat).as_ref(), &[], &[], 4 * PAGE, LONG).unwrap();
        assert_eq!(running.read(8, 4).unwrap(), [7, 0, 0, 0], "{engine:?}");
        let wat = "(module (global $ran (mut i32) (i32.const 0))
            (func $start (global.set $ran (i32.const 1))) (start $start))";
        assert!(made(engine.load(wat).as_ref(), &[], &[], 4 * PAGE, LONG).is_ok());
    }
}

#[test]
fn the_modules_own_counter_is_set_and_read() {
    for engine in ENGINES {
        let mut running = engine.start("", "i64.const 0", &[]).unwrap();
        assert_eq!((running.fuel(), running.set_fuel(1)), (None, false));
        let counter = r#"(global $fuel (export "fuel") (mut i64) (i64.const 7))"#;
        let body = "(global.set $fuel (i64.sub (global.get $fuel) (i64.const 5))) i64.const 0";
        let mut running = engine.start(counter, body, &[]).unwrap();
        assert_eq!((running.fuel(), running.set_fuel(3)), (Some(7), true));
        configure(&mut running, LONG).unwrap();
        assert_eq!(running.fuel(), Some(-2));
    }
}

#[test]
fn memory_and_tables_stop_at_their_limits() {
    for engine in ENGINES {
        let body = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                    (i64.extend_i32_u (memory.size))";
        let mut running = engine.start("", body, &[]).unwrap();
        assert_eq!(value(&mut running), 4);
        let table = "(table $t 1 funcref)";
        let body = "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1000))
                                           (i32.const -1))))
                    (i64.extend_i32_u (table.size $t))";
        let mut running = engine.start(table, body, &[]).unwrap();
        let size = value(&mut running);
        assert!((99_001..=100_000).contains(&size), "{engine:?}: {size}");

        let loaded = engine.load("(module (memory 5))");
        let stop = made(loaded.as_ref(), &[], &[], 4 * PAGE, LONG).err().unwrap();
        assert!(
            matches!(&stop, Stop::Trap { says, .. } if says.contains("memory")),
            "{engine:?}: {stop:?}"
        );
    }
}

/// wasmi takes the register of another instruction for the condition.
#[test]
fn a_select_by_a_comparison_with_zero_selects_by_what_was_compared() {
    let count = "(global $count (mut i32) (i32.const 9))";
    let busy = "(global.set $count (i32.sub (global.get $count) (i32.const 1)))";
    for engine in ENGINES {
        for (condition, expected) in [
            ("(i32.eqz (local.get $zero))", 1),
            ("(i32.eq (local.get $zero) (i32.const 0))", 1),
            ("(i32.ne (local.get $zero) (i32.const 0))", 2),
            ("(i32.eqz (local.get $two))", 2),
            ("(i32.ne (local.get $two) (i32.const 0))", 1),
            ("(i32.eqz (local.get $zero)) nop", 1),
            ("(i32.eqz (local.get $zero)) (i32.const 7) drop", 1),
        ] {
            for select in ["select", "select (result i32)"] {
                let body = format!(
                    "(local $zero i32) (local $two i32)
                     (local.set $two (i32.const 2)) (local.set $zero (i32.const 0)) {busy}
                     (i32.const 1) (local.get $two) {condition} {select} i64.extend_i32_u"
                );
                let mut running = engine.start(count, &body, &[]).unwrap();
                assert_eq!(value(&mut running), expected, "{engine:?}: {condition} {select}");
            }
        }
    }
}

#[test]
fn many_locals_begin_with_zero_in_each_call() {
    let locals = " i64".repeat(10_000);
    let body = format!(
        "(local{locals})
         (if (i64.ne (local.get 9999) (i64.const 0)) (then unreachable))
         (local.set 9999 (i64.const 7)) (local.set 3 (i64.const 5))
         (i64.add (local.get 9999)
           (select (local.get 3) (local.get 2) (i32.eqz (i32.wrap_i64 (local.get 4)))))"
    );
    for engine in ENGINES {
        let mut running = engine.start("", &body, &[]).unwrap();
        for _ in 0..2 {
            assert_eq!(value(&mut running), 12, "{engine:?}");
        }
    }
}

/// wasmi forgets where a `table.grow` ran out of fuel, and a function would go on elsewhere.
#[test]
fn a_table_grows_wherever_the_guest_is_paused() {
    let table = "(table $other 3 externref) (table $t 1 funcref)
                 (global $began (mut i32) (i32.const 0))";
    // Over more than one slice of wasmi's fuel, in steps of less than the growth costs.
    let spins = (10_000..40_000).step_by(200);
    for engine in ENGINES {
        for spins in spins.clone() {
            let body = format!(
                "(local $n i32)
                 (global.set $began (i32.add (global.get $began) (i32.const 1)))
                 (loop (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1)))
                                          (i32.const {spins}))))
                 (if (i32.ne (table.grow $t (ref.func 0) (i32.const 90000)) (i32.const 1))
                   (then unreachable))
                 (if (i32.ne (table.size $t) (i32.const 90001)) (then unreachable))
                 (if (ref.is_null (table.get $t (i32.const 90000))) (then unreachable))
                 (i64.extend_i32_u (global.get $began))"
            );
            let mut running = engine.start(table, &body, &[]).unwrap();
            assert_eq!(value(&mut running), 1, "{engine:?}, {spins}");
        }
    }
}

#[test]
fn a_table_that_does_not_grow_stays_as_it_was() {
    let tables = "(table $free 3 externref) (table $bound 1 10 funcref)";
    for engine in ENGINES {
        for (grow, result, size) in [
            ("(table.grow $bound (ref.null func) (i32.const 9))", 1, 10),
            ("(table.grow $bound (ref.null func) (i32.const 10))", u32::MAX, 1),
            ("(table.grow $bound (ref.null func) (i32.const -1))", u32::MAX, 1),
            ("(table.grow $bound (ref.null func) (i32.const 0))", 1, 1),
            ("(table.grow $free (ref.null extern) (i32.const 99997))", 3, 100_000),
            ("(table.grow $free (ref.null extern) (i32.const 99998))", u32::MAX, 3),
        ] {
            let table = if grow.contains("$free") { "$free" } else { "$bound" };
            let body = format!(
                "(i64.or (i64.shl (i64.extend_i32_u {grow}) (i64.const 32))
                         (i64.extend_i32_u (table.size {table})))"
            );
            let mut running = engine.start(tables, &body, &[]).unwrap();
            assert_eq!(value(&mut running), u64::from(result) << 32 | size, "{engine:?}: {grow}");
        }
    }
}

#[test]
fn the_host_is_called_and_may_call_back() {
    let imports = r#"
        (import "env" "method" (func $method (param i32 i32) (result i64)))
        (import "env" "other" (func $other (param i64) (result i32)))
        (import "env" "other" (func $again (param i64) (result i32)))"#;
    let other = Signature { params: vec![Kind::I64], result: Some(Kind::I32) };
    let kinds = [method(), other.clone(), other];
    for engine in ENGINES {
        let body = |code: &str| engine.start(imports, code, &kinds).unwrap();
        let mut running = body("(call $method (i32.const -1) (i32.const 2))");
        assert_eq!(value(&mut running), (1 << 32) + 1, "arguments are unsigned");
        let mut running = body("(i64.extend_i32_u (call $other (i64.const 40)))");
        assert_eq!(value(&mut running), 41);
        let mut running = body("(i64.extend_i32_u (call $again (i64.const 40)))");
        assert_eq!(value(&mut running), 42, "an import may stand twice");
        let mut running = body("(call $method (i32.const 1000) (i32.const 0))");
        assert_eq!(configure(&mut running, LONG).unwrap(), (b"borrowed".to_vec(), false));
        let mut running = body("(call $method (i32.const 13) (i32.const 0))");
        let stop = configure(&mut running, LONG).unwrap_err();
        assert!(
            matches!(&stop, Stop::Host { place: 0, error, .. } if error.to_string() == "unlucky"),
            "{engine:?}: {stop:?}"
        );
    }
}

#[test]
fn a_host_function_that_panics_ends_the_call_and_nothing_else() {
    let imports = r#"
        (import "env" "method" (func $method (param i32 i32) (result i64)))
        (import "env" "other" (func $other (param i64) (result i32)))"#;
    let other = Signature { params: vec![Kind::I64], result: Some(Kind::I32) };
    let kinds = [method(), other];
    let method = "(call $method (local.get 0) (local.get 1))";
    for engine in ENGINES {
        for (body, first, called, says) in [
            (method, 14, 0, "it panicked: beside itself with 2"),
            (
                "(i64.extend_i32_u (call $other (i64.const 14)))",
                0,
                1,
                "it panicked: beside itself with 1",
            ),
            (method, 1014, 0, "within: it panicked: beside itself with 2"),
        ] {
            let mut bystander = engine.start(imports, method, &kinds).unwrap();
            let mut running = engine.start(imports, body, &kinds).unwrap();
            running.begin(LONG);
            let stop = running.run("plugin_configure", first, 0).unwrap_err();
            assert!(
                matches!(&stop, Stop::Host { place, error, .. }
                    if *place == called && error.to_string() == says),
                "{engine:?}: {stop:?}"
            );
            drop(running);
            assert_eq!(value(&mut bystander), 0, "{engine:?}");
        }
    }
}

/// Of a start function.
#[test]
fn a_host_function_that_panics_ends_the_start_alone() {
    let wat = r#"(module (import "env" "other" (func $other (param i64) (result i32)))
        (func $start (drop (call $other (i64.const 14)))) (start $start))"#;
    let other = Signature { params: vec![Kind::I64], result: Some(Kind::I32) };
    for engine in ENGINES {
        let loaded = engine.load(wat);
        let stop =
            made(loaded.as_ref(), std::slice::from_ref(&other), &[], 4 * PAGE, LONG).err().unwrap();
        assert!(
            matches!(&stop, Stop::Host { place: 0, error, .. }
                if error.to_string() == "it panicked: beside itself with 1"),
            "{engine:?}: {stop:?}"
        );
    }
}

#[test]
fn pointers_outside_are_told_with_the_size_of_the_memory() {
    for engine in ENGINES {
        let mut running = engine.start("", "(i64.const 0xfffffff000000020)", &[]).unwrap();
        let stop = configure(&mut running, LONG).unwrap_err();
        assert!(
            matches!(
                stop,
                Stop::Outside { action: "read", pointer: 0xffff_fff0, size: 32, held: 131_072 }
            ),
            "{engine:?}: {stop:?}"
        );
    }
}

#[test]
fn an_instance_moves_between_threads_and_outlives_its_module() {
    for engine in ENGINES {
        let mut running = engine.start("", "i64.const 0", &[]).unwrap();
        for _ in 0..4 {
            running = std::thread::spawn(move || {
                running.begin(LONG);
                let echoed = exchange(running.as_mut(), "plugin_echo", b"x", 1, 1).unwrap();
                assert_eq!(echoed.0, b"x");
                running
            })
            .join()
            .unwrap();
        }
    }
}

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
