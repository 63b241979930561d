//! Rates, against a clock of the test.
