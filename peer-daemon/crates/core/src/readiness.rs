//! Readiness: latches that many parts hold and that can fall back.
