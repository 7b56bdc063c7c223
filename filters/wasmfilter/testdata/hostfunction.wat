;; A module that asks its program about each message.
(module
  (import "host" "wanted" (func $wanted (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "filterd_abi_v1"))
  (func (export "filterd_buffer") (param i32) (result i32) i32.const 16)
  (func (export "filterd_process") (param i32) (result i32)
    i32.const 16
    local.get 0
    call $wanted))
