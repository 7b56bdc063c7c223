//! Keeps messages whose data.price is above the configured min.

mod filterd;

use filterd::{Config, Error, Field, Handler, Message, Verdict};

struct Expensive {
    price: Field,
    min: f64,
}

impl Handler for Expensive {
    /// Once for each instance, before any message.
    fn configure(config: &mut Config) -> Result<Self, Error> {
        Ok(Expensive { price: config.field("data.price")?, min: config.f64("min", 100.0)? })
    }

    /// For each message.
    fn process(&mut self, m: &Message) -> Result<Verdict, Error> {
        let price = m.f64(self.price);
        if price.is_nan() {
            return Err("price must be a number".into());
        }
        Ok(if price > self.min { Verdict::Pass } else { Verdict::Drop })
    }
}

filterd::handler!(Expensive);
