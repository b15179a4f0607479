//! Reference evaluator of rules: naive on purpose, the oracle of every dataplane.
