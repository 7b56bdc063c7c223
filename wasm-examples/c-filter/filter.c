// Keeps prices of large trades: data.price times data.qty above the configured min.
#include "../../guest/c/filterd.h"

static filterd_field price, qty;
static double min;

int32_t filterd_configure(uint32_t len) {
    price = filterd_declare("data.price");
    qty = filterd_declare("data.qty");
    min = filterd_config_f64(len, "min", 10000);
    if (!(min >= 0)) return filterd_fail("config: min must be a number, 0 or more");
    return 0;
}

int32_t filterd_process(uint32_t len) {
    (void)len; // the fields are all we need
    double notional = filterd_f64(price) * filterd_f64(qty);
    if (notional != notional) return filterd_fail("price and qty must be numbers"); // NaN
    return notional > min ? FILTERD_PASS : FILTERD_DROP;
}
