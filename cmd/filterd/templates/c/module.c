// Keeps messages whose data.price is above the configured min.
#include "filterd.h"

static filterd_field price;
static double min;

// Once for each instance, before any message.
int32_t filterd_configure(uint32_t len) {
    price = filterd_declare("data.price");
    min = filterd_config_f64(len, "min", 100);
    if (min != min) return filterd_fail("config: min must be a number"); // NaN
    return 0;
}

// For each message.
int32_t filterd_process(uint32_t len) {
    (void)len; // the field is all we need
    double p = filterd_f64(price);
    if (p != p) return filterd_fail("price must be a number"); // NaN
    return p > min ? FILTERD_PASS : FILTERD_DROP;
}
