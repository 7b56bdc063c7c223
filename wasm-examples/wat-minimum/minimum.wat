;; The least that a module can be: it keeps messages of at most 256 bytes.
(module
  (memory (export "memory") 17)                     ;; 64 KiB in front, then a buffer of 1 MiB
  (func (export "filterd_abi_v1"))
  (func (export "filterd_buffer") (param $len i32) (result i32)
    (select (i32.const 65536) (i32.const 0)         ;; always the same buffer; 0 refuses
      (i32.le_u (local.get $len) (i32.const 1048576))))
  (func (export "filterd_process") (param $len i32) (result i32)
    (i32.le_u (local.get $len) (i32.const 256))))   ;; 1 passes, 0 drops
