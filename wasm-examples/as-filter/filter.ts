// Keeps what a human should see of BOT_STATUS: the configured statuses, and bots whose equity is below a floor.
import { Config, Field, Kind, Level, Message, Verdict, handle } from "../../guest/assemblyscript/filterd";
export { filterd_abi_v1, filterd_buffer, filterd_configure, filterd_process } from "../../guest/assemblyscript/filterd";

let status: Field;
let equity: Field;
let statuses: string[] = [];
let floor: f64;

function configure(config: Config): void {
  status = config.field("data.status");
  equity = config.field("data.equity");
  statuses = config.text("statuses", "failed,stopped").split(",");
  floor = config.f64("floor", 0);
}

function process(m: Message): Verdict {
  const now = m.text(status);
  if (now == null || m.kind(status) != Kind.String) return m.fail("status must be a string");
  if (statuses.includes(now)) return Verdict.Pass;
  if (m.f64(equity) < floor) { // never so for NaN: bots need not tell
    m.log(Level.Warn, "equity is below the floor");
    return Verdict.Pass;
  }
  return Verdict.Drop;
}

handle(configure, process);
