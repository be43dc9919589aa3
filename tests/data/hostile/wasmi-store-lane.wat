;; plugin_configure answers 07 on every engine but wasmi 2.0.0, which reads `v128.store8_lane` with so
;; large an offset otherwise than it wrote it, and jumps to what it takes for an address. See
;; docs/fuzzing.md.
(module
  (memory (export "memory") 2)
  (func (export "plugin_api_version") (result i64) i64.const 1)
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "free") (param i32))
  (func (export "plugin_configure") (param i32 i32) (result i64)
    (v128.store8_lane offset=65536 13 (i32.const 8) (i8x16.splat (i32.const 7)))
    (i64.const 0x1000800000001)))
