//! The API, as pveproxy and pvedaemon serve it: tokens, privileges, parameters, and Proxmox's words when something is wrong.

mod cluster;
mod containers;
mod endpoint;
mod http;
mod request;
mod schema;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use containers::shown;
pub(crate) use containers::wanted;
pub use http::serve;
pub use request::Request;
pub use request::Response;
pub use request::parse_form;
pub use schema::Parameters;

use crate::access::{Secrets, Users};
use crate::ct::{Caller, CpuTimes, Node};
use crate::died::{Died, Outcome};
use crate::misbehave::Misbehaviour;
use endpoint::{Access, Endpoint, fill, find};

/// The API of a node. Everything in it blocks.
#[derive(Clone, Debug)]
pub struct Api {
    node: Node,
    times: Arc<CpuTimes>,
}

impl Api {
    /// The API of a node.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            times: Arc::default(),
        }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Response {
        let caller = match self.authenticate(request) {
            Ok(caller) => caller,
            // Only Proxmox's log is told why.
            Err(why) => {
                eprintln!("authentication failure: {why}");
                let words = match request.authorization {
                    Some(_) => "Authentication failed!",
                    None => "No ticket",
                };
                return Response::words(401, words);
            }
        };
        let mut response = match self.serve(request, &caller) {
            Ok(response) => response,
            Err(died) => Response::died(&died),
        };
        response.user = caller.who;
        response
    }

    fn authenticate(&self, request: &Request) -> Result<Caller, String> {
        let header = request.authorization.as_deref().ok_or("no token")?;
        let token = header
            .strip_prefix("PVEAPIToken=")
            .ok_or("no API token specified")?;
        let house = self.node.house();
        let read = |file: &str| std::fs::read_to_string(house.pve(file)).unwrap_or_default();
        let users = Users::read(&read("user.cfg"));
        let secrets = Secrets::read(&read("priv/token.cfg"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let who = users.verify(token, &secrets, now.map_or(0, |now| now.as_secs()))?;
        Ok(Caller {
            who: who.to_owned(),
            users,
        })
    }

    /// In the order of pveproxy: the endpoint, the privilege, the node, the parameters.
    fn serve(&self, request: &Request, caller: &Caller) -> Outcome<Response> {
        let (method, path) = (&request.method, &request.path);
        let Some((endpoint, in_path)) = find(method, path) else {
            return Err(Died {
                status: 501,
                ..Died::new(format!("Method '{method} {path}' not implemented"))
            });
        };
        let parameters = merged(in_path, &request.parameters)?;
        check_access(endpoint, caller, &parameters)?;
        if let Some(elsewhere) = self.elsewhere(&parameters)? {
            return Ok(elsewhere);
        }
        if endpoint.protected && Misbehaviour::read(self.node.house()).daemon_down {
            return Ok(Response::words(595, "Connection refused"));
        }
        endpoint.schema.check(&parameters)?;
        let data = (endpoint.handler)(self, caller, &parameters)?;
        Ok(Response::data(&data))
    }

    /// What pveproxy says of a request for another node, none of which is there.
    fn elsewhere(&self, parameters: &Parameters) -> Outcome<Option<Response>> {
        let options = self.node.house().options();
        let Some(node) = parameters.get("node").filter(|node| **node != options.node) else {
            return Ok(None);
        };
        if node == "localhost" {
            return Ok(None);
        }
        match options.peers.contains(node) {
            true => Ok(Some(Response::words(595, "No route to host"))),
            false => Err(Died::new(format!(
                "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
            ))),
        }
    }
}

fn merged(in_path: Parameters, given: &Parameters) -> Outcome<Parameters> {
    let mut all = in_path;
    let mut errors = BTreeMap::new();
    for (name, value) in given {
        if all.get(name).is_some_and(|known| known != value) {
            let words = "duplicate parameter (already defined in URI) with conflicting values!";
            errors.insert(name.clone(), words.to_owned());
        }
        all.insert(name.clone(), value.clone());
    }
    match errors.is_empty() {
        true => Ok(all),
        false => Err(Died::parameters(errors)),
    }
}

fn check_access(endpoint: &Endpoint, caller: &Caller, parameters: &Parameters) -> Outcome {
    match endpoint.access {
        Access::All => Ok(()),
        Access::Has(path, privileges) => {
            let path = fill(path, parameters);
            privileges
                .iter()
                .try_for_each(|privilege| caller.check(&path, privilege))
        }
        Access::HasAny(path, privileges) => caller.check_any(&fill(path, parameters), privileges),
    }
}
