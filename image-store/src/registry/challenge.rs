//! What a registry asks for: the `WWW-Authenticate` header (RFC 9110, section 11.6.1).

/// One challenge: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter by its lower-case name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges in a header. What cannot be understood is left out.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            // Not a token where one must be: nothing after it can be trusted either.
            return challenges;
        }
        let behind = after.trim_start_matches([' ', '\t']);
        if let Some(value) = behind.strip_prefix('=') {
            let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
            if let Some(challenge) = challenges.last_mut() {
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            });
            rest = after;
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // More than RFC 9110 allows without quotes: some registries send bare URLs.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_ones() {
        let hub = parse(
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
        );
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].scheme, "bearer");
        assert_eq!(hub[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(hub[0].get("scope"), Some("repository:a/b:pull,push"));
        let both = parse("Basic realm=\"x \\\"y\\\"\", bearer Realm = https://t.example/t");
        assert_eq!(both.len(), 2);
        assert_eq!(both[0].get("realm"), Some("x \"y\""));
        assert_eq!(both[1].get("realm"), Some("https://t.example/t"));
        assert_eq!(parse("Negotiate")[0].scheme, "negotiate");
        assert!(parse("").is_empty());
        assert!(parse("=\"x\"").is_empty());
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in any::<String>()) {
            let _ = parse(&header);
        }

        #[test]
        fn header_like_text_is_read(header in "[a-zA-Z ,=\"\\\\/:.]{0,60}") {
            let _ = parse(&header);
        }
    }
}
