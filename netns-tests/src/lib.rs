//! Lab builder.
