//! Does what data.do says, by every call of the SDK: see sdk_test.go.

#[path = "../rust/filterd.rs"]
mod filterd;

use filterd::{push_json, Config, EmitError, Error, Field, Handler, Level, Message, Verdict};

struct Calls {
    what: Field,
    v: Field,
    number: f64,
    word: String,
}

impl Handler for Calls {
    fn configure(config: &mut Config) -> Result<Self, Error> {
        let what = config.field("data.do")?;
        let v = config.field("data[\"v\"][0]")?;
        if config.field("nonsense").is_ok() {
            return Err("not an error".into());
        }
        config.log(Level::Debug, "configured");
        if config.bool("flag", true)? != config.raw("flag").map_or(true, |raw| raw == b"true") || !config.json().contains(&b'{') {
            return Err("bool, raw or json".into());
        }
        Ok(Calls { what, v, number: config.f64("number", 7.0)?, word: config.text("word", "-")? })
    }

    fn process(&mut self, m: &Message) -> Result<Verdict, Error> {
        let text = m.bytes(self.v);
        let v = text.clone().unwrap_or_default();
        Ok(match m.text(self.what).as_deref() {
            Some("pass") => Verdict::Pass,
            Some("drop") => Verdict::Drop,
            Some("fail") => return Err(String::from_utf8_lossy(&v).into_owned().into()),
            Some("payload") => m.replace(m.payload()),
            Some("channel") => m.replace(m.channel()),
            Some("now") => m.replace(m.now_ns().to_string()),
            Some("kind") => m.replace((m.kind(self.v) as i32).to_string()),
            Some("text") => m.replace(text.unwrap_or_else(|| b"missing".to_vec())),
            Some("bool") => m.replace((m.bool(self.v) as i32).to_string()),
            Some("number") if m.f64(self.v).is_nan() => m.replace("NaN"),
            Some("number") => m.replace(((m.f64(self.v) * 1000.0) as i64).to_string()),
            Some("config") => m.replace(format!("{} {}", (self.number * 1000.0) as i64, self.word)),
            Some("emit") => m.replace((code(m.emit("side", &v)) * 10 + code(m.emit("closed", &v))).to_string()),
            Some("emit33") => m.replace((0..33).fold(0, |_, _| code(m.emit("side", "7"))).to_string()),
            Some("log") => {
                m.log(Level::Warn, &String::from_utf8_lossy(&v));
                Verdict::Drop
            }
            Some("set") => {
                m.kv_set("key", &v, 60_000)?;
                m.replace("0")
            }
            Some("get") => m.replace(m.kv_get("key").unwrap_or_else(|| b"missing".to_vec())),
            Some("incr") => m.replace(m.kv_incr("count", -2, 0).to_string()),
            Some("json") => {
                let mut json = Vec::new();
                push_json(&mut json, &String::from_utf8_lossy(&v));
                m.replace(json)
            }
            _ => return Err("unknown".into()),
        })
    }
}

fn code(result: Result<(), EmitError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(EmitError::NotAllowed) => -1,
        Err(EmitError::TooMany) => -2,
        Err(EmitError::BreaksContract) => -3,
    }
}

filterd::handler!(Calls, batch);
