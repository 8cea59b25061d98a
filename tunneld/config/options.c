/* The option table: section, key, type, default, bounds and help in one place.
 * Parsing, defaults, `tunneld --options` and the test of the manual page use it. */
#include "tunneld/config/internal.h"
#include "tunneld/base/loop.h"
#include <string.h>

#define MS TD_MS
#define S TD_SEC
#define MIN (60 * TD_SEC)
#define HOUR (3600 * TD_SEC)
#define K 1024ull
#define M (1024ull * 1024)
#define G (1024ull * 1024 * 1024)

const struct td_section_kind td_sections[TD_SEC_COUNT] = {
    [TD_SEC_TUNNELD] = {"tunneld", false, "the process, whatever its role"},
    [TD_SEC_AWS] = {"aws", false, "defaults for every tunnel, alias and agent"},
    [TD_SEC_TUNNEL] = {"tunnel", true, "a listener and where it leads"},
    [TD_SEC_ALIAS] = {"alias", true, "a name for connect, forward and shell"},
    [TD_SEC_AGENT] = {"agent", false, "the target's side"},
    [TD_SEC_GATEWAY] = {"gateway", false, "the control API and the relay"},
    [TD_SEC_USER] = {"user", true, "who may start sessions at the gateway"},
    [TD_SEC_INSTANCE] = {"instance", true, "an agent that the gateway knows"},
};

#define C(f) offsetof(struct td_config, f)
#define A(f) offsetof(struct td_aws_config, f)
#define T(f) offsetof(struct td_tunnel_config, f)
#define AG(f) offsetof(struct td_agent_config, f)
#define GW(f) offsetof(struct td_gateway_config, f)
#define U(f) offsetof(struct td_user_config, f)
#define I(f) offsetof(struct td_instance_config, f)

/* One line each: sections, key, type, offset, default, low, high, words, flags, set flag, help. */
#define OPT(sec, key, type, off, dflt, lo, hi, words, flags, help)                                                     \
	{                                                                                                              \
		(sec), (key), TD_T_##type, (off), (dflt), (lo), (hi), (words), (flags), 0, (help)                      \
	}
#define AWS(key, type, off, flags, help)                                                                               \
	{                                                                                                              \
		TD_IN_AWS_KEYS, (key), TD_T_##type, A(off), NULL, 0, 0, NULL, TD_F_AWS | (flags), 0, (help)            \
	}

/* clang-format off */
const struct td_opt td_opts[] = {
	/* [tunneld] */
	OPT(TD_IN(TUNNELD), "log_level", WORD, C(log_level), "info", 0, 0, "error|warn|info|debug", 0, "least important lines that are logged"),
	OPT(TD_IN(TUNNELD), "log_format", WORD, C(log_format), "text", 0, 0, "text|json", 0, "how log lines look"),
	OPT(TD_IN(TUNNELD), "drain_timeout", DURATION, C(fwd.drain_timeout_ns), "10s", 0, HOUR, NULL, 0, "how long SIGTERM lets connections finish"),
	OPT(TD_IN(TUNNELD), "state_dir", PATH, C(state_dir), NULL, 0, 0, NULL, 0, "where state, locks and control sockets are kept"),
	OPT(TD_IN(TUNNELD), "memory_limit", SIZE, C(process_memory), "96M", 8 * M, 1024 * G, NULL, 0, "buffers of the whole process; at the limit reading and accepting stop"),
	OPT(TD_IN(TUNNELD), "control_socket", BOOL, C(control_socket), "yes", 0, 0, NULL, 0, "answer `tunneld status`"),

	/* [aws] and wherever its keys may stand */
	AWS("region", REGION, region, 0, "AWS region; else from the environment or the profile"),
	AWS("profile", TEXT, profile, 0, "profile of the shared configuration and credentials files"),
	AWS("ssm_endpoint", URL, ssm_endpoint, 0, "control API; default: AWS's of the region"),
	AWS("ssmmessages_endpoint", URL, ssmmessages_endpoint, 0, "message gateway; default: AWS's of the region"),
	AWS("kms_endpoint", URL, kms_endpoint, 0, "key service; default: AWS's of the region"),
	AWS("sts_endpoint", URL, sts_endpoint, 0, "token service; default: AWS's of the region"),
	AWS("ca_file", FILE, ca_file, 0, "PEM bundle of the authorities to trust; default: the system's"),
	AWS("client_certificate", FILE, client_certificate, 0, "PEM certificate shown to servers that ask for one"),
	AWS("client_key", KEYFILE, client_key, 0, "PEM private key of client_certificate"),
	AWS("access_key_id", KEYID, access_key_id, 0, "explicit credentials; else environment, profiles, container, instance"),
	AWS("secret_access_key", ID, secret_access_key, TD_F_SECRET, "secret of access_key_id"),
	AWS("session_token", ID, session_token, TD_F_SECRET, "token of temporary credentials"),
	AWS("proxy", PROXY, proxy, TD_F_SECRET, "HTTP CONNECT proxy; none ignores HTTPS_PROXY"),
	AWS("stream_hosts", LIST, stream_hosts, 0, "further hosts that a StreamUrl may name"),
	AWS("use_fips", TRI, use_fips, 0, "use AWS's FIPS endpoints"),
	AWS("use_dualstack", TRI, use_dualstack, 0, "use AWS's dual-stack endpoints"),

	/* [tunnel NAME], [alias NAME] */
	OPT(TD_IN(TUNNEL), "listen", LISTEN, T(listen), NULL, 0, 0, NULL, TD_F_REQUIRED, "local addresses: ADDRESS:PORT, [IPV6]:PORT, unix:PATH; port 0 picks one"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "target", TARGET, T(target), NULL, 0, 0, NULL, TD_F_REQUIRED, "instance to reach: i-…, mi-…, ecs:…"),
	OPT(TD_IN(TUNNEL), "port", PORT, T(port), NULL, 1, 65535, NULL, TD_F_REQUIRED, "port at the target, or at host"),
	OPT(TD_IN(ALIAS), "port", PORT, T(port), "22", 1, 65535, NULL, 0, "port at the target"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "host", HOST, T(host), NULL, 0, 0, NULL, 0, "a host behind the target"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "document", ID, T(document), NULL, 0, 0, NULL, 0, "session document; default: the one that fits"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "reason", TEXT, T(reason), NULL, 0, 0, NULL, 0, "Reason of StartSession, for the audit trail"),
	OPT(TD_IN(TUNNEL), "max_connections", UINT, T(max_connections), "200", 1, 65535, NULL, 0, "connections at a time; at the limit accepting stops"),
	OPT(TD_IN(TUNNEL), "session", SESSION, T(session), "shared", 1, 64, NULL, 0, "one session for all connections, one each, or up to N"),
	OPT(TD_IN(TUNNEL), "open", WORDBOOL, T(open_at_start), "demand", 0, 0, "demand|start", 0, "when the session is started"),
	OPT(TD_IN(TUNNEL), "keepalive", BOOL, T(keepalive), "yes", 0, 0, NULL, 0, "keep sessions with open connections from idling out, by a word every third of idle_timeout"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "require_encryption", BOOL, T(require_encryption), "no", 0, 0, NULL, 0, "refuse sessions that are not encrypted with KMS"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "connect_timeout", DURATION, T(connect_timeout_ns), "30s", 100 * MS, HOUR, NULL, 0, "how long a connection waits for a session"),
	OPT(TD_IN(TUNNEL), "idle_timeout", DURATION, T(idle_timeout_ns), "20m", 1 * S, 168 * HOUR, NULL, 0, "the far end's idle time-out, and when surplus sessions without connections end"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "half_close_timeout", DURATION, T(half_close_timeout_ns), "10m", 0, 168 * HOUR, NULL, 0, "how long one direction may stay open alone; 0: for ever"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "ping_interval", DURATION, T(ping_interval_ns), "30s", 100 * MS, HOUR, NULL, 0, "between WebSocket pings"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "pong_timeout", DURATION, T(pong_timeout_ns), "10s", 100 * MS, HOUR, NULL, 0, "a ping without answer for so long is a broken link"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "reconnect_min", DURATION, T(reconnect_min_ns), "100ms", 1 * MS, HOUR, NULL, 0, "first back-off after a broken link"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "reconnect_max", DURATION, T(reconnect_max_ns), "5s", 1 * MS, HOUR, NULL, 0, "longest back-off"),
	{TD_IN(TUNNEL) | TD_IN(ALIAS), "message_rate", TD_T_UINT, T(message_rate), NULL, 0, 10000000, NULL, 0, T(message_rate_set), "messages a second and session; 0: no limit; default 900 towards AWS, else none"},
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "session_memory", SIZE, T(session_memory), "16M", 256 * K, 16 * G, NULL, 0, "buffers of one session"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "stream_window", SIZE, T(stream_window), "1M", 64 * K, 1 * G, NULL, 0, "unread bytes of one connection"),
	OPT(TD_IN(TUNNEL) | TD_IN(ALIAS), "max_payload", SIZE32, T(max_payload), "32K", 1024, 64 * K, NULL, 0, "largest message between two tunneld ends"),

	/* [agent] */
	OPT(TD_IN(AGENT), "instance_id", TARGET, AG(instance_id), NULL, 0, 0, NULL, TD_F_REQUIRED, "the name that targets use"),
	OPT(TD_IN(AGENT), "allow", RULES, AG(allow), NULL, 0, 0, NULL, 0, "what may be dialed: HOST:PORT, CIDR:PORT, HOST:LOW-HIGH, HOST:*; default: loopback"),
	OPT(TD_IN(AGENT), "deny", RULES, AG(deny), NULL, 0, 0, NULL, 0, "what may not, whatever allow says; default: metadata, link-local, multicast"),
	OPT(TD_IN(AGENT), "dial_timeout", DURATION, AG(dial_timeout_ns), "10s", 100 * MS, HOUR, NULL, 0, "for one connection to a service"),
	OPT(TD_IN(AGENT), "drain_timeout", DURATION, AG(drain_timeout_ns), NULL, 0, HOUR, NULL, 0, "as in [tunneld], for the agent"),
	OPT(TD_IN(AGENT), "half_close_timeout", DURATION, AG(half_close_timeout_ns), "10m", 0, 168 * HOUR, NULL, 0, "how long one direction may stay open alone; 0: for ever"),
	OPT(TD_IN(AGENT), "ping_interval", DURATION, AG(ping_interval_ns), "30s", 100 * MS, HOUR, NULL, 0, "between WebSocket pings"),
	OPT(TD_IN(AGENT), "pong_timeout", DURATION, AG(pong_timeout_ns), "10s", 100 * MS, HOUR, NULL, 0, "a ping without answer for so long is a broken link"),
	OPT(TD_IN(AGENT), "reconnect_min", DURATION, AG(reconnect_min_ns), "100ms", 1 * MS, HOUR, NULL, 0, "first back-off after a broken link"),
	OPT(TD_IN(AGENT), "reconnect_max", DURATION, AG(reconnect_max_ns), "5s", 1 * MS, HOUR, NULL, 0, "longest back-off"),
	OPT(TD_IN(AGENT), "session_memory", SIZE, AG(session_memory), "16M", 256 * K, 16 * G, NULL, 0, "buffers of one session"),
	OPT(TD_IN(AGENT), "stream_window", SIZE, AG(stream_window), "1M", 64 * K, 1 * G, NULL, 0, "unread bytes of one connection"),
	OPT(TD_IN(AGENT), "max_payload", SIZE32, AG(max_payload), "32K", 1024, 64 * K, NULL, 0, "largest message between two tunneld ends"),
	OPT(TD_IN(AGENT), "max_sessions", UINT, AG(max_sessions), "1000", 1, 100000, NULL, 0, "sessions at a time"),
	OPT(TD_IN(AGENT), "max_streams", UINT, AG(max_streams), "1000", 1, 65535, NULL, 0, "connections of one session at a time"),
	OPT(TD_IN(AGENT), "require_challenge_ack", BOOL, AG(require_challenge_ack), "no", 0, 0, NULL, 0, "refuse clients that do not confirm the KMS challenge (stock ones do not)"),
	OPT(TD_IN(AGENT), "require_encryption", BOOL, AG(require_encryption), "no", 0, 0, NULL, 0, "refuse sessions that are not encrypted with KMS"),
	OPT(TD_IN(AGENT), "shell", BOOL, AG(shell), "no", 0, 0, NULL, 0, "serve shell and command sessions"),
	OPT(TD_IN(AGENT), "shell_user", ID, AG(shell_user), NULL, 0, 0, NULL, 0, "whom shells run as; wanted with shell = yes"),

	/* [gateway] */
	OPT(TD_IN(GATEWAY), "listen", LISTEN, 0, NULL, 0, 0, NULL, TD_F_REQUIRED, "addresses of the HTTPS port"),
	OPT(TD_IN(GATEWAY), "public_url", URL, GW(public_url), NULL, 0, 0, NULL, 0, "what StreamUrl names; default: from listen"),
	OPT(TD_IN(GATEWAY), "region", REGION, GW(region), NULL, 0, 0, NULL, 0, "region that signatures must name; default: any"),
	OPT(TD_IN(GATEWAY), "certificate", FILE, GW(certificate), NULL, 0, 0, NULL, TD_F_REQUIRED, "PEM certificate chain"),
	OPT(TD_IN(GATEWAY), "private_key", KEYFILE, GW(private_key), NULL, 0, 0, NULL, TD_F_REQUIRED, "PEM private key of certificate"),
	OPT(TD_IN(GATEWAY), "client_ca", FILE, GW(client_ca), NULL, 0, 0, NULL, 0, "ask for client certificates of these authorities"),
	OPT(TD_IN(GATEWAY), "store", STORE, GW(store), NULL, 0, 0, NULL, 0, "session records; default: in state_dir"),
	OPT(TD_IN(GATEWAY), "kms_key_file", KEYFILE, GW(kms_key_file), NULL, 0, 0, NULL, 0, "answer the two KMS calls with this key"),
	OPT(TD_IN(GATEWAY), "kms_key_id", ID, GW(kms_key_id), NULL, 0, 0, NULL, 0, "key that sessions are encrypted with"),
	OPT(TD_IN(GATEWAY), "encrypt_shells", BOOL, GW(encrypt_shells), "no", 0, 0, NULL, 0, "have shell sessions encrypted"),
	OPT(TD_IN(GATEWAY), "encrypt_ports", BOOL, GW(encrypt_ports), "no", 0, 0, NULL, 0, "have port sessions encrypted (tunneld ends only)"),
	OPT(TD_IN(GATEWAY), "idle_timeout", DURATION, GW(idle_timeout_ns), "20m", 100 * MS, 168 * HOUR, NULL, 0, "sessions without stream messages end"),
	OPT(TD_IN(GATEWAY), "max_session", DURATION, GW(max_session_ns), "0", 0, 8760 * HOUR, NULL, 0, "longest duration of a session; 0: no limit"),
	OPT(TD_IN(GATEWAY), "token_ttl", DURATION, GW(token_ttl_ns), "60s", 100 * MS, HOUR, NULL, 0, "how long a token may be used"),
	OPT(TD_IN(GATEWAY), "ping_interval", DURATION, GW(ping_interval_ns), "30s", 100 * MS, HOUR, NULL, 0, "between WebSocket pings"),
	OPT(TD_IN(GATEWAY), "pong_timeout", DURATION, GW(pong_timeout_ns), "10s", 100 * MS, HOUR, NULL, 0, "a ping without answer for so long is a broken link"),
	OPT(TD_IN(GATEWAY), "drain_timeout", DURATION, GW(drain_timeout_ns), NULL, 0, HOUR, NULL, 0, "as in [tunneld], for the gateway"),
	OPT(TD_IN(GATEWAY), "relay_memory", SIZE, GW(relay_memory), "4M", 256 * K, 16 * G, NULL, 0, "buffers per direction of a session"),
	OPT(TD_IN(GATEWAY), "max_sessions", UINT, GW(max_sessions), "10000", 1, 1000000, NULL, 0, "sessions at a time"),
	OPT(TD_IN(GATEWAY), "per_peer_connections", UINT, GW(per_peer_connections), "256", 1, 1000000, NULL, 0, "connections of one address"),

	/* [user NAME], [instance ID] */
	OPT(TD_IN(USER), "access_key_id", KEYID, U(access_key_id), NULL, 0, 0, NULL, TD_F_REQUIRED, "key that requests are signed with"),
	OPT(TD_IN(USER), "secret_access_key", ID, U(secret_access_key), NULL, 0, 0, NULL, TD_F_REQUIRED | TD_F_SECRET, "secret of access_key_id"),
	OPT(TD_IN(USER), "targets", LIST, U(targets), NULL, 0, 0, NULL, TD_F_REQUIRED, "instances that may be reached; * and ? match"),
	OPT(TD_IN(INSTANCE), "access_key_id", KEYID, I(access_key_id), NULL, 0, 0, NULL, TD_F_REQUIRED, "key that the agent signs with"),
	OPT(TD_IN(INSTANCE), "secret_access_key", ID, I(secret_access_key), NULL, 0, 0, NULL, TD_F_REQUIRED | TD_F_SECRET, "secret of access_key_id"),
};
/* clang-format on */
const int td_nopts = (int)(sizeof(td_opts) / sizeof(td_opts[0]));

const char *td_opt_type_text(const struct td_opt *o)
{
	static const char *const text[] = {
	    [TD_T_TEXT] = "text",	  [TD_T_ID] = "text",
	    [TD_T_KEYID] = "text",	  [TD_T_REGION] = "region",
	    [TD_T_TARGET] = "target",	  [TD_T_PATH] = "path",
	    [TD_T_FILE] = "file",	  [TD_T_KEYFILE] = "private file",
	    [TD_T_STORE] = "sqlite:PATH", [TD_T_URL] = "URL",
	    [TD_T_PROXY] = "URL or none", [TD_T_HOST] = "host",
	    [TD_T_DURATION] = "duration", [TD_T_SIZE] = "size",
	    [TD_T_SIZE32] = "size",	  [TD_T_UINT] = "number",
	    [TD_T_PORT] = "port",	  [TD_T_BOOL] = "yes or no",
	    [TD_T_TRI] = "yes or no",	  [TD_T_SESSION] = "shared|per-connection|pool N",
	    [TD_T_LIST] = "list",	  [TD_T_LISTEN] = "addresses",
	    [TD_T_RULES] = "rules",
	};
	return o->words ? o->words : text[o->type];
}

bool td_option_at(int i, struct td_option *out)
{
	static const char *const shown[TD_SEC_COUNT] = {"tunneld", "aws",     "tunnel NAME", "alias NAME",
							"agent",   "gateway", "user NAME",   "instance ID"};
	for (int k = 0; k < TD_SEC_COUNT; k++)
		for (int j = 0; j < td_nopts; j++) {
			const struct td_opt *o = &td_opts[j];
			/* The keys of [aws] are listed once, there. */
			if (!td_opt_in(o, (enum td_section)k) || ((o->flags & TD_F_AWS) && k != TD_SEC_AWS) || i-- > 0)
				continue;
			*out = (struct td_option){shown[k], o->key, td_opt_type_text(o),
						  o->flags & TD_F_REQUIRED ? "required"
						  : o->dflt		   ? o->dflt
									   : "",
						  o->help};
			return true;
		}
	return false;
}
