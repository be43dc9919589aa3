;; plugin_configure answers 01 on every engine but wasmi 2.0.0, which answers 00: the condition is
;; what `i32.sub` left in a register. See docs/fuzzing.md.
(module
  (memory (export "memory") 1)
  (global $count (mut i32) (i32.const 9))
  (func (export "plugin_api_version") (result i64) i64.const 1)
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "free") (param i32))
  (func (export "plugin_configure") (param i32 i32) (result i64) (local $zero i32)
    (global.set $count (i32.sub (global.get $count) (i32.const 1)))
    (i32.store8 (i32.const 8)
      (i32.xor (local.get 0)
        (select (i32.const 1) (local.get $zero) (i32.eqz (local.get $zero)))))
    (i64.const 0x800000001)))
