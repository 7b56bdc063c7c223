;; Keeps messages whose data.price is above 100.
(module
  (import "filterd" "fail" (func $fail (param $text i32) (param $len i32)))
  (import "filterd" "field" (func $field (param $path i32) (param $len i32) (result i32)))
  (import "filterd" "field_f64" (func $field_f64 (param $id i32) (result f64)))

  (memory (export "memory") 17)                     ;; 64 KiB for texts, then a buffer of 1 MiB
  (data (i32.const 0) "data.price")
  (data (i32.const 16) "price must be a number")
  (global $price (mut i32) (i32.const -1))          ;; the field's id

  (func (export "filterd_abi_v1"))                  ;; marks the interface's version, is never called

  ;; Where the host writes a message of that length; 0 refuses.
  (func (export "filterd_buffer") (param $len i32) (result i32)
    (select (i32.const 65536) (i32.const 0)
      (i32.le_u (local.get $len) (i32.const 1048576))))

  ;; Once for each instance, before any message; 0 accepts.
  (func (export "filterd_configure") (param $len i32) (result i32)
    (global.set $price (call $field (i32.const 0) (i32.const 10)))
    (i32.const 0))

  ;; For each message: 0 drops, 1 passes, -1 fails.
  (func (export "filterd_process") (param $len i32) (result i32)
    (local $p f64)
    (local.set $p (call $field_f64 (global.get $price)))
    (if (f64.ne (local.get $p) (local.get $p))      ;; NaN: no number
      (then
        (call $fail (i32.const 16) (i32.const 22))
        (return (i32.const -1))))
    (f64.gt (local.get $p) (f64.const 100))))
