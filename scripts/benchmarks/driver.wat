;; Serves a guest from inside Wasm: what it takes is the guest's own work, because the
;; boundary between host and guest is crossed once for all calls.
(module
  (import "guest" "memory" (memory $guest 0))
  (import "guest" "malloc" (func $malloc (param i32) (result i32)))
  (import "guest" "free" (func $free (param i32)))
  (import "guest" "plugin_create_container" (func $create (param i32 i32) (result i64)))
  (memory $own (export "memory") 1) ;; holds the request
  ;; What one crossing takes, to be taken off.
  (func (export "nothing") (param i32 i32) (result i64) (i64.const 0))
  (func (export "run") (param $size i32) (param $times i32) (result i64)
    (local $request i32) (local $reply i64)
    (loop $again
      (local.set $request (call $malloc (local.get $size)))
      (memory.copy $guest $own (local.get $request) (i32.const 0) (local.get $size))
      (local.set $reply (call $create (local.get $request) (local.get $size)))
      (if (i32.wrap_i64 (i64.shr_u (local.get $reply) (i64.const 32)))
        (then (call $free (i32.wrap_i64 (i64.shr_u (local.get $reply) (i64.const 32))))))
      (call $free (local.get $request))
      (local.set $times (i32.sub (local.get $times) (i32.const 1)))
      (br_if $again (local.get $times)))
    (local.get $reply)))
