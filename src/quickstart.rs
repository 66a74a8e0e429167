//! What `tollgate` alone prints: where everything is, and the curl lines that show it at work.

use std::fmt::Write;

use crate::{config::Settings, net::Address, token::settings::ConnectorKind};

/// `KEY=value` lines for a shell, then commands with what they answer.
pub fn guide(settings: &Settings) -> String {
    let mut text = String::new();
    for (key, value) in keys(settings) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    text.push_str(COMMANDS);
    text
}

fn keys(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    if let Some(proxy) = &settings.proxy {
        keys.push(("PROXY_PORT", port(&proxy.listen)));
        keys.push(("API_URL", format!("http://{}/orders/v1", proxy.listen)));
    }
    if let Some(admin) = &settings.admin {
        keys.push(("ADMIN_PORT", port(&admin.listen)));
        keys.push(("METRICS_URL", format!("http://{}/metrics", admin.listen)));
    }
    for provider in settings.key_managers.iter().filter(|km| km.connector == ConnectorKind::Embedded) {
        keys.push((
            "PROVIDER_PORT",
            provider.listen.as_deref().and_then(|l| l.parse().ok()).map_or_else(String::new, |l| port(&l)),
        ));
        keys.push(("TOKEN_URL", format!("{}/token", provider.issuer)));
        for (client, [id, secret]) in provider.clients.iter().zip(CLIENTS) {
            keys.push((id, client.id.clone()));
            // The quickstart's secrets are in the public file that it is made of.
            keys.push((secret, client.secret.read().map_or_else(|_| String::new(), |s| s.to_string())));
        }
    }
    keys
}

fn port(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.port().to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

/// Names for the clients of the quickstart, in their order.
const CLIENTS: [[&str; 2]; 2] =
    [["CLIENT_ID", "CLIENT_SECRET"], ["UNSUBSCRIBED_CLIENT_ID", "UNSUBSCRIBED_CLIENT_SECRET"]];

const COMMANDS: &str = r#"
# Paste the lines above into another shell, then:
TOKEN=$(curl -s -u "$CLIENT_ID:$CLIENT_SECRET" -d grant_type=client_credentials "$TOKEN_URL" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
OTHER=$(curl -s -u "$UNSUBSCRIBED_CLIENT_ID:$UNSUBSCRIBED_CLIENT_SECRET" -d grant_type=client_credentials "$TOKEN_URL" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -i -H "Authorization: Bearer $TOKEN" "$API_URL/items/42"            # 200: good token, subscribed, scope orders:read
curl -i "$API_URL/items/42"                                              # 401: no token
curl -i -H "Authorization: Bearer ${TOKEN}x" "$API_URL/items/42"         # 401: not a good token
curl -i -H "Authorization: Bearer $TOKEN" -d '{}' "$API_URL/items"       # 403: lacks the scope orders:write
curl -i -H "Authorization: Bearer $OTHER" "$API_URL/items/42"            # 403: its application is not subscribed
for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $TOKEN" "$API_URL/items/42"; done   # 429: five a minute
curl -s "$METRICS_URL" | grep ^tollgate_requests_total                   # what was counted

"#;
