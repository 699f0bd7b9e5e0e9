//! Errors with their causes on one line.

use std::error::Error;
use std::fmt;

/// Prints an error and its chain of sources: `failed to x: y: z`.
///
/// Error messages here never hold their source, so nothing is said twice.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        // Libraries don't keep the rule; a source that was just said is left out.
        let mut said = self.0.to_string();
        while let Some(error) = source {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to read the file")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("it is on fire: no disk")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn causes_follow_on_one_line() {
        let error = Outer(std::io::Error::other("no disk"));
        assert_eq!(Chain(&error).to_string(), "failed to read the file: no disk");
        let error = Repeats(std::io::Error::other("no disk"));
        assert_eq!(Chain(&error).to_string(), "it is on fire: no disk");
    }
}
