//! Requests and answers of the API, without HTTP.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schema::Parameters;
use crate::died::Died;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// `/nodes/pve1/lxc`, decoded, without `/api2/json`.
    pub path: String,
    /// From the query and from the body.
    pub parameters: Parameters,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The reason phrase: the usual one if it is empty.
    pub reason: String,
    /// JSON; `None` is an empty body.
    pub body: Option<Value>,
    /// Whether it comes three seconds late, as all that were refused for their token do.
    pub late: bool,
    /// Who asked, for the log.
    pub user: String,
}

impl Response {
    /// What was asked for.
    pub fn data(data: &Value) -> Self {
        Self {
            status: 200,
            reason: String::new(),
            body: Some(json!({ "data": data })),
            late: false,
            user: String::new(),
        }
    }

    /// A refusal: its words are in the status line and in the body.
    pub fn died(died: &Died) -> Self {
        let mut body = Map::from_iter([("data".to_owned(), Value::Null)]);
        body.insert("message".to_owned(), json!(format!("{}\n", died.message)));
        if !died.errors.is_empty() {
            body.insert("errors".to_owned(), json!(died.errors));
        }
        Self {
            status: died.status,
            reason: died.message.lines().next().unwrap_or_default().to_owned(),
            body: Some(Value::Object(body)),
            late: died.status == 401,
            user: String::new(),
        }
    }

    /// Words in the status line alone.
    pub fn words(status: u16, words: &str) -> Self {
        Self {
            status,
            reason: words.to_owned(),
            body: None,
            late: status == 401,
            user: String::new(),
        }
    }
}

/// `a=b&c=d`, as query or body. Twice the same name makes a list, which nothing here takes: the last one holds.
pub fn parse_form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(['&', ';']).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(key), decode_form(value))
        })
        .collect()
}

fn decode_form(text: &str) -> String {
    crate::conf::decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        let form = parse_form("vmid=100&description=a+b%26c%0A&force");
        assert_eq!(form["vmid"], "100");
        assert_eq!(form["description"], "a b&c\n");
        assert_eq!(form["force"], "");
    }

    #[test]
    fn refusals_have_words_twice() {
        let response = Response::died(&Died::parameter("memory", "type check failed"));
        assert_eq!(
            (response.status, &*response.reason),
            (400, "Parameter verification failed.")
        );
        let body = response.body.unwrap();
        assert_eq!(body["message"], "Parameter verification failed.\n");
        assert_eq!(body["errors"]["memory"], "type check failed");
        assert_eq!(body["data"], Value::Null);
    }
}
