//! Settings: typed values, and where they come from. No I/O beyond reading
//! configuration; everything else in the program gets what is parsed here.

pub mod types;
