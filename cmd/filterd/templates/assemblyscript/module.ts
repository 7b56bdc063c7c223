// Keeps messages whose data.price is above the configured min.
import { Config, Field, Message, Verdict, handle } from "./filterd";
export { filterd_abi_v1, filterd_buffer, filterd_configure, filterd_process } from "./filterd";

let price: Field;
let min: f64;

// Once for each instance, before any message.
function configure(config: Config): void {
  price = config.field("data.price");
  min = config.f64("min", 100);
}

// For each message.
function process(m: Message): Verdict {
  const p = m.f64(price);
  if (isNaN(p)) return m.fail("price must be a number");
  return p > min ? Verdict.Pass : Verdict.Drop;
}

handle(configure, process);
