package exprfilter

// Slow says that everything takes ten times as long.
const Slow = slow
