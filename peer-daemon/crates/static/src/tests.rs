mod good;
mod limits;
mod property;
mod refused;
mod secrets;

use super::*;

/// RFC 7748 §6.1: Alice and Bob.
const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const PEER: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
const OTHER: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

/// Four lines of a good `[interface]`.
fn interface() -> String {
    format!("[interface]\nprivate_key = \"{PRIVATE}\"\naddresses = [\"100.64.0.1/16\"]\n\n")
}

fn read(text: &str) -> Result<Desired, Problems> {
    parse(text, Path::new(""))
}

fn problems(text: &str) -> Vec<Problem> {
    match read(text) {
        Ok(desired) => panic!("taken: {text}\n{desired:?}"),
        Err(problems) => problems.iter().cloned().collect(),
    }
}
