//! Which path on which socket does what.

use hyper::Method;

/// The two sockets, and the receiver of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `control.sock`: root only.
    Control,
    /// `declare.sock`: everybody, declarations only.
    Declare,
    /// The receiver of spans, where there is one: everybody on this host. What it takes is in [`super::otlp`].
    Otlp,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The daemon itself.
    Status,
    /// All sessions.
    Sessions,
    /// One session's processes.
    Tree,
    /// The policy in force.
    Policy,
    /// Bring a policy into force.
    Apply,
    /// Make a self-test.
    SelfTest,
    /// Say what a session is about to do.
    Declare,
    /// What was declared.
    Intents,
    /// One intent.
    Intent,
    /// Have an intent count no longer.
    CloseIntent,
    /// Say whether what was done is what it should be.
    CheckIntent,
    /// Say what a tool does.
    Tool,
    /// Make the caller a session.
    Launch,
    /// The document that describes all this.
    OpenApi,
}

/// One route: `{…}` in its path stands for one segment.
#[derive(Debug)]
pub struct Route {
    /// The socket that it is on.
    pub door: Door,
    /// Its only method.
    pub method: Method,
    /// Its path.
    pub path: &'static str,
    /// What it does.
    pub action: Action,
}

/// All routes. `openapi.json` describes the same; a test compares them.
pub const ROUTES: &[Route] = &[
    Route { door: Door::Control, method: Method::GET, path: "/v1/status", action: Action::Status },
    Route { door: Door::Control, method: Method::GET, path: "/v1/sessions", action: Action::Sessions },
    Route {
        door: Door::Control,
        method: Method::GET,
        path: "/v1/sessions/{session}/tree",
        action: Action::Tree,
    },
    Route { door: Door::Control, method: Method::GET, path: "/v1/policy", action: Action::Policy },
    Route { door: Door::Control, method: Method::POST, path: "/v1/policy/apply", action: Action::Apply },
    Route { door: Door::Control, method: Method::POST, path: "/v1/selftest", action: Action::SelfTest },
    Route { door: Door::Control, method: Method::GET, path: "/v1/intents", action: Action::Intents },
    Route { door: Door::Control, method: Method::POST, path: "/v1/intents/declare", action: Action::Declare },
    Route { door: Door::Control, method: Method::GET, path: "/v1/intents/{intent}", action: Action::Intent },
    Route {
        door: Door::Control,
        method: Method::POST,
        path: "/v1/intents/{intent}/close",
        action: Action::CloseIntent,
    },
    Route {
        door: Door::Control,
        method: Method::POST,
        path: "/v1/intents/{intent}/check",
        action: Action::CheckIntent,
    },
    Route { door: Door::Control, method: Method::GET, path: "/v1/openapi.json", action: Action::OpenApi },
    Route { door: Door::Declare, method: Method::POST, path: "/v1/declare", action: Action::Declare },
    Route { door: Door::Declare, method: Method::POST, path: "/v1/tool", action: Action::Tool },
    Route { door: Door::Declare, method: Method::POST, path: "/v1/launch", action: Action::Launch },
];

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// To this action, with the text of the path's `{…}`, still percent-encoded.
    Action(Action, &'a str),
    /// The path takes only this method.
    OtherMethod(Method),
    /// The path is on the other socket.
    OtherDoor,
    /// Nowhere.
    Nothing,
}

/// Finds where a request leads.
pub fn find<'a>(door: Door, method: &Method, path: &'a str) -> Found<'a> {
    let matching = |route: &'static Route| matches(route.path, path).map(|parameter| (route, parameter));
    match ROUTES.iter().find_map(matching) {
        None => Found::Nothing,
        Some((route, _)) if route.door != door => Found::OtherDoor,
        Some((route, _)) if route.method != method => Found::OtherMethod(route.method.clone()),
        Some((route, parameter)) => Found::Action(route.action, parameter),
    }
}

fn matches<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let mut parameter = "";
    let (mut names, mut segments) = (template.split('/'), path.split('/'));
    loop {
        match (names.next(), segments.next()) {
            (None, None) => return Some(parameter),
            (Some(name), Some(segment)) if name.starts_with('{') && !segment.is_empty() => {
                parameter = segment
            }
            (Some(name), Some(segment)) if name == segment => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_they_should_and_nowhere_else() {
        let find = |method, path| find(Door::Control, &method, path);
        assert_eq!(find(Method::GET, "/v1/status"), Found::Action(Action::Status, ""));
        assert_eq!(find(Method::GET, "/v1/sessions/a%20b/tree"), Found::Action(Action::Tree, "a%20b"));
        assert_eq!(find(Method::DELETE, "/v1/sessions"), Found::OtherMethod(Method::GET));
        assert_eq!(find(Method::POST, "/v1/launch"), Found::OtherDoor);
        for path in
            ["", "/", "/v1", "/v1/status/", "//v1/status", "/v1/sessions//tree", "/v1/sessions/a/b/tree"]
        {
            assert_eq!(find(Method::GET, path), Found::Nothing, "{path}");
        }
    }
}
