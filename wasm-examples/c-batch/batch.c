// Keeps prices of symbols with the configured prefix, if their spread is wide: (ask - bid) / bid of at least min_spread.
// The batch form reads fields from cells in memory; the single form does the same by host calls.
#include "../../guest/c/filterd.h"

static filterd_field symbol, bid, ask;
static char prefix[64]; // zero-terminated
static double min_spread;

int32_t filterd_configure(uint32_t len) {
    uint32_t ignored;
    symbol = filterd_declare("data.symbol");
    bid = filterd_declare("data.bid");
    ask = filterd_declare("data.ask");
    min_spread = filterd_config_f64(len, "min_spread", 0.001);
    if (min_spread != min_spread) return filterd_fail("config: min_spread must be a number");
    if (filterd_config(len, "prefix", &ignored) && filterd_config_text(len, "prefix", prefix, sizeof prefix) < 0)
        return filterd_fail("config: prefix must be a string of up to 63 bytes");
    return 0;
}

static int32_t decide(const char *name, uint32_t name_len, double b, double a) {
    for (uint32_t i = 0; prefix[i]; i++)
        if (i >= name_len || name[i] != prefix[i]) return FILTERD_DROP;
    return (a - b) / b >= min_spread ? FILTERD_PASS : FILTERD_DROP; // NaN: drop
}

int32_t filterd_process(uint32_t len) {
    (void)len;
    char name[sizeof prefix]; // longer than any prefix
    int32_t n = filterd_text(symbol, name, sizeof name);
    if (n < 0 || filterd_kind(symbol) != FILTERD_STRING) return filterd_fail("symbol must be a string");
    return decide(name, n < (int32_t)sizeof name ? (uint32_t)n : sizeof name, filterd_f64(bid), filterd_f64(ask));
}

int32_t filterd_process_batch(uint32_t n) {
    filterd_entry *batch = filterd_batch();
    for (uint32_t i = 0; i < n; i++) {
        const filterd_cell *cells = filterd_cells(&batch[i]);
        if (cells[symbol].kind == FILTERD_STRING) {
            batch[i].verdict = decide(filterd_at(cells[symbol].bits), cells[symbol].len, filterd_cell_f64(cells[bid]),
                                      filterd_cell_f64(cells[ask]));
        } else {
            filterd_select(i);
            batch[i].verdict = filterd_fail("symbol must be a string");
        }
    }
    return 0;
}
