//! The main job, shown.
