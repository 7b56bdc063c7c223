// Does what data.do says, by every call of the SDK: see sdk_test.go.
import { Config, Field, Level, Message, Verdict, handle, quoted } from "../assemblyscript/filterd";
export { filterd_abi_v1, filterd_buffer, filterd_configure, filterd_process, filterd_process_batch } from "../assemblyscript/filterd";

let what: Field;
let v: Field;
let number: f64;
let word = "";

function configure(config: Config): void {
  what = config.field("data.do");
  v = config.field('data["v"][0]');
  number = config.f64("number", 7);
  word = config.text("word", "-");
  config.bool("flag", true);
  if (!config.json.includes("{")) config.fail("json");
  config.log(Level.Debug, "configured");
}

function process(m: Message): Verdict {
  const text = m.text(v);
  const value = text == null ? "" : text;
  const action = m.text(what);
  if (action == "pass") return Verdict.Pass;
  if (action == "drop") return Verdict.Drop;
  if (action == "fail") return m.fail(value);
  if (action == "payload") return m.replace(m.payload());
  if (action == "channel") return m.replace(m.channel());
  if (action == "now") return m.replace(m.nowNs().toString());
  if (action == "kind") return m.replace((<i32>m.kind(v)).toString());
  if (action == "text") return m.replace(text == null ? "missing" : text);
  if (action == "bool") return m.replace(m.bool(v) ? "1" : "0");
  if (action == "number") return m.replace(isNaN(m.f64(v)) ? "NaN" : (<i64>(m.f64(v) * 1000)).toString());
  if (action == "config") return m.replace((<i64>(number * 1000)).toString() + " " + word);
  if (action == "emit") return m.replace((<i32>m.emit("side", value) * 10 + <i32>m.emit("closed", value)).toString());
  if (action == "emit33") {
    let code = 0;
    for (let i = 0; i < 33; i++) code = m.emit("side", "7");
    return m.replace(code.toString());
  }
  if (action == "log") {
    m.log(Level.Warn, value);
    return Verdict.Drop;
  }
  if (action == "set") return m.replace(m.kvSet("key", value, 60000) ? "0" : "-1");
  if (action == "get") {
    const kept = m.kvGet("key");
    return m.replace(kept == null ? "missing" : kept);
  }
  if (action == "incr") return m.replace(m.kvIncr("count", -2, 0).toString());
  if (action == "json") return m.replaceBytes(String.UTF8.encode(quoted(value)));
  return m.fail("unknown");
}

handle(configure, process);
