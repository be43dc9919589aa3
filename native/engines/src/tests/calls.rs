//! Whole calls: the exchange of a request, the functions of the host, threads.

use super::*;

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
