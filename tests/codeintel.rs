//! codeintel
