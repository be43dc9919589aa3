//! Time, memory, tables, fuel, and code that wasmi would run wrongly.

use super::*;

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
