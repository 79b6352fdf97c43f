pidfile = "{dir}/prosody.pid"
run_as_root = true
data_path = "{dir}/data"
interfaces = { "127.0.0.1" }
c2s_ports = { {c2s} }
c2s_direct_tls_ports = { {c2s_tls} }
s2s_ports = { {s2s} }
s2s_direct_tls_ports = { {s2s_tls} }
http_ports = {}
https_ports = {}
certificates = "{dir}"
use_ipv6 = false
log = { {level} = "*console" }
storage = "internal"
authentication = "internal_hashed"
c2s_require_encryption = true
unlimited_jids = {}
limits = {}
modules_disabled = { {disabled} }
modules_enabled = {
	"roster", "saslauth", "tls", "disco", "carbons", "blocklist", "vcard", "version", "time",
	"ping", "offline", "smacks", "lastactivity", {enabled}
}
unbound = {
	resolvconf = false; hoststxt = false; forward = "127.0.0.1@{dns}"; {anchor}
	options = { ["do-not-query-localhost:"] = "no"; ["cache-max-negative-ttl:"] = "1" };
}
ssl = { certificate = "{cert}", key = "{key}", cafile = "{ca}", protocol = "tlsv1_2+" }
{proof}
