//! Turns an exchange's ticks into prices: `{"s":"btcusdt","p":"60000.10","q":"0.5"}` becomes
//! `{"symbol":"BTC-USDT","price":60000.10,"qty":0.5,"venue":"example"}`. Digits stay as they came.

#[path = "../../guest/rust/filterd.rs"]
mod filterd;

use filterd::{push_json, Config, Error, Field, Handler, Message, Verdict};

struct Normaliser {
    symbol: Field,
    price: Field,
    qty: Field,
    quotes: String, // the currencies that a symbol may end with
    venue: String,
}

impl Handler for Normaliser {
    fn configure(config: &mut Config) -> Result<Self, Error> {
        Ok(Normaliser {
            symbol: config.field("data.s")?,
            price: config.field("data.p")?,
            qty: config.field("data.q")?,
            quotes: config.text("quotes", "USDT,USDC,USD,EUR")?,
            venue: config.text("venue", "")?,
        })
    }

    fn process(&mut self, m: &Message) -> Result<Verdict, Error> {
        let symbol = m.text(self.symbol).ok_or("s must be a string")?;
        let price = m.bytes(self.price).filter(|p| is_decimal(p)).ok_or("p must be a decimal above 0")?;

        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(b"{\"symbol\":");
        push_json(&mut out, &self.pair(&symbol)?);
        out.extend_from_slice(b",\"price\":");
        out.extend_from_slice(&price);
        if let Some(qty) = m.bytes(self.qty) {
            if !is_decimal(&qty) {
                return Err("q must be a decimal above 0".into());
            }
            out.extend_from_slice(b",\"qty\":");
            out.extend_from_slice(&qty);
        }
        if !self.venue.is_empty() {
            out.extend_from_slice(b",\"venue\":");
            push_json(&mut out, &self.venue);
        }
        out.push(b'}');
        Ok(m.replace(out))
    }
}

impl Normaliser {
    /// `btcusdt`, `BTC/USDT` and `btc_usdt` are all `BTC-USDT`.
    fn pair(&self, symbol: &str) -> Result<String, Error> {
        let plain: String = symbol.chars().filter(|c| !"-/_".contains(*c)).map(|c| c.to_ascii_uppercase()).collect();
        for quote in self.quotes.split(',') {
            match plain.strip_suffix(quote) {
                Some(base) if !base.is_empty() => return Ok([base, quote].join("-")),
                _ => {}
            }
        }
        Err(["unknown quote currency: ", symbol].concat().into())
    }
}

/// Digits with at most one point between them, as JSON wants them, and not all zero.
fn is_decimal(text: &[u8]) -> bool {
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let mut parts = text.splitn(2, |c| *c == b'.');
    let whole = parts.next().unwrap_or_default();
    digits(whole)
        && (whole.len() == 1 || whole[0] != b'0')
        && parts.next().map_or(true, digits)
        && text.iter().any(|c| (b'1'..=b'9').contains(c))
}

filterd::handler!(Normaliser);
