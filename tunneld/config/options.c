/* The option table: one row a key, with its sections, type, place, default, bounds and help.  Reading, defaults,
 * inheritance from [aws], comparing, freeing, `tunneld --options` and the test of the manual page follow it, so that a
 * new key is a row here and a member of the structure that holds it. */
#include "lib/num.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/internal.h"
#include <string.h>

#define MS TD_MS
#define S TD_SEC
#define HOUR (3600 * TD_SEC)
#define K 1024ull
#define M (1024ull * 1024)
#define G (1024ull * 1024 * 1024)

#define TYPE(t) .type = &td_types[TD_T_##t]
/* Sections, and where in their objects. */
#define TUNNELD(f) .in = TD_IN(TUNNELD), .off = offsetof(struct td_config, f)
#define TUNNEL(f) .in = TD_IN(TUNNEL), .off = offsetof(struct td_tunnel_config, f)
#define ALIAS(f) .in = TD_IN(ALIAS), .off = offsetof(struct td_tunnel_config, f)
#define BOTH(f) .in = TD_IN(TUNNEL) | TD_IN(ALIAS), .off = offsetof(struct td_tunnel_config, f)
#define AGENT(f) .in = TD_IN(AGENT), .off = offsetof(struct td_agent_config, f)
#define GATEWAY(f) .in = TD_IN(GATEWAY), .off = offsetof(struct td_gateway_config, f)
#define USER(f) .in = TD_IN(USER), .off = offsetof(struct td_user_config, f)
#define INSTANCE(f) .in = TD_IN(INSTANCE), .off = offsetof(struct td_instance_config, f)
/* A key of [aws] is called like its member, and may stand wherever a struct td_aws_config is. */
#define AWS(f, more)                                                                                                   \
	.key = #f, .in = TD_IN_AWS_KEYS, .off = offsetof(struct td_aws_config, f), .flags = TD_F_AWS | (more)

/* clang-format off */
const struct td_opt td_opts[] = {
	/* [tunneld] */
	{.key = "log_level", TUNNELD(log_level), TYPE(WORD), .words = "error|warn|info|debug", .dflt = "info",
	 .help = "least important lines that are logged"},
	{.key = "log_format", TUNNELD(log_format), TYPE(WORD), .words = "text|json", .dflt = "text",
	 .help = "how log lines look"},
	{.key = "log_connections", TUNNELD(log_connections), TYPE(BOOL), .dflt = "yes",
	 .help = "log each connection that begins or ends; no: only those that fail"},
	{.key = "drain_timeout", TUNNELD(fwd.drain_timeout_ns), TYPE(DURATION), .dflt = "10s", .lo = 0, .hi = HOUR,
	 .help = "how long SIGTERM lets connections finish"},
	{.key = "state_dir", TUNNELD(state_dir), TYPE(PATH),
	 .help = "where state, locks and control sockets are kept"},
	{.key = "memory_limit", TUNNELD(process_memory), TYPE(SIZE), .dflt = "96M", .lo = 8 * M, .hi = 1024 * G,
	 .help = "buffers of the whole process; at the limit reading and accepting stop"},
	{.key = "control_socket", TUNNELD(control_socket), TYPE(BOOL), .dflt = "yes",
	 .help = "answer `tunneld status`"},
	{.key = "http", TUNNELD(http), TYPE(ADDRS),
	 .help = "where metrics, health checks and the status page are served; default: nowhere"},
	{.key = "http_hosts", TUNNELD(http_hosts), TYPE(LIST),
	 .help = "further names by which http may be asked for"},
	{.key = "include", TUNNELD(include), TYPE(LIST),
	 .help = "further files, with * and ?; relative to this one; may also stand before the first section"},
	{.key = "user", TUNNELD(user), TYPE(ID),
	 .help = "whom the process becomes when root starts it"},
	{.key = "seccomp", TUNNELD(seccomp), TYPE(BOOL), .dflt = "yes",
	 .help = "refuse the system calls that the role has no use for"},

	/* [aws] and wherever its keys may stand */
	{AWS(region, 0), TYPE(REGION),
	 .help = "AWS region; else from the environment or the profile"},
	{AWS(profile, 0), TYPE(TEXT), .group = TD_GROUP_CREDENTIALS,
	 .help = "profile of the shared configuration and credentials files"},
	{AWS(ssm_endpoint, 0), TYPE(URLS),
	 .help = "control API, at one or more addresses, tried in turn; default: AWS's of the region"},
	{AWS(ssmmessages_endpoint, 0), TYPE(URLS),
	 .help = "message gateway, at one or more addresses, tried in turn; default: AWS's of the region"},
	{AWS(kms_endpoint, 0), TYPE(URL),
	 .help = "key service; default: AWS's of the region"},
	{AWS(sts_endpoint, 0), TYPE(URL),
	 .help = "token service; default: AWS's of the region"},
	{AWS(ecs_endpoint, 0), TYPE(URL),
	 .help = "container service, for targets that are ecs:CLUSTER/SERVICE; default: AWS's of the region"},
	{AWS(ca_file, 0), TYPE(FILE),
	 .help = "PEM bundle of the authorities to trust; default: the system's"},
	{AWS(client_certificate, 0), TYPE(FILE), .group = TD_GROUP_CERTIFICATE,
	 .help = "PEM certificate shown to servers that ask for one"},
	{AWS(client_key, 0), TYPE(KEYFILE), .group = TD_GROUP_CERTIFICATE,
	 .help = "PEM private key of client_certificate"},
	{AWS(access_key_id, 0), TYPE(KEYID), .group = TD_GROUP_CREDENTIALS,
	 .help = "explicit credentials; else environment, profiles, container, instance"},
	{AWS(secret_access_key, TD_F_SECRET), TYPE(SECRET), .group = TD_GROUP_CREDENTIALS,
	 .help = "secret of access_key_id"},
	{AWS(secret_access_key_file, 0), TYPE(SECRETF), .group = TD_GROUP_CREDENTIALS,
	 .help = "file with the secret of access_key_id, in place of secret_access_key"},
	{AWS(session_token, TD_F_SECRET), TYPE(ID), .group = TD_GROUP_CREDENTIALS,
	 .help = "token of temporary credentials"},
	{AWS(proxy, TD_F_SECRET | TD_F_IF_USER), TYPE(PROXY),
	 .help = "HTTP CONNECT proxy; none ignores HTTPS_PROXY"},
	{AWS(stream_hosts, 0), TYPE(LIST),
	 .help = "further hosts that a StreamUrl may name"},
	{AWS(use_fips, 0), TYPE(TRI),
	 .help = "use AWS's FIPS endpoints"},
	{AWS(use_dualstack, 0), TYPE(TRI),
	 .help = "use AWS's dual-stack endpoints"},

	/* [tunnel NAME], [alias NAME] */
	{.key = "type", TUNNEL(type), TYPE(WORD), .words = "tcp|proxy|udp|reverse", .dflt = "tcp",
	 .help = "what it carries"},
	{.key = "listen", .in = TD_IN(TUNNEL), TYPE(LISTEN), .flags = TD_F_REQUIRED,
	 .help = "local addresses: ADDRESS:PORT, [IPV6]:PORT, unix:PATH; port 0 picks one"},
	{.key = "target", BOTH(target), TYPE(FIND), .flags = TD_F_REQUIRED, .instead = "targets",
	 .help = "instance to reach: i-…, mi-…, ecs:…, or how to find it: tag:KEY=VALUE, name:HOST, ecs:CLUSTER/SERVICE"},
	{.key = "targets", BOTH(target), TYPE(FINDS),
	 .help = "several, in place of target: the first one that is connected is taken"},
	{.key = "select", BOTH(select), TYPE(WORD), .words = "only|newest|any", .dflt = "only",
	 .help = "which of several instances that a target matches; only: several are an error"},
	{.key = "port", TUNNEL(port), TYPE(PLACE), .lo = 1, .hi = 65535,
	 .help = "port at the target, or at host, LOW-HIGH, or unix:PATH of a socket at the target; a proxy has none"},
	{.key = "port", ALIAS(port), TYPE(PLACE), .dflt = "22", .lo = 1, .hi = 65535,
	 .help = "port at the target, or unix:PATH of a socket there"},
	{.key = "host", BOTH(host), TYPE(HOST),
	 .help = "a host behind the target"},
	{.key = "bind", TUNNEL(bind), TYPE(BIND),
	 .help = "type = reverse: where the agent listens: ADDRESS:PORT, [IPV6]:PORT, unix:PATH; port 0 picks one"},
	{.key = "connect", TUNNEL(connect), TYPE(CONNECT),
	 .help = "type = reverse: the service here: HOST:PORT, [IPV6]:PORT, unix:PATH"},
	{.key = "document", BOTH(document), TYPE(ID),
	 .help = "session document; default: the one that fits"},
	{.key = "reason", BOTH(reason), TYPE(TEXT),
	 .help = "Reason of StartSession, for the audit trail"},
	{.key = "allow", TUNNEL(allow), TYPE(RULES),
	 .help = "where a proxy goes: HOST:PORT, CIDR:PORT, HOST:LOW-HIGH, HOST:*; default: wherever the agent does"},
	{.key = "proxy_auth", TUNNEL(users), TYPE(USERS),
	 .help = "file of user:HASH lines; who uses the proxy gives a password; required unless it listens on loopback or a socket"},
	{.key = "max_destinations", TUNNEL(max_destinations), TYPE(UINT), .dflt = "16", .lo = 1, .hi = 1000,
	 .help = "sessions of a proxy at a time, towards an agent where each is for one host and port"},
	{.key = "socket_mode", TUNNEL(socket_mode), TYPE(MODE), .dflt = "0600", .lo = 0, .hi = 0777,
	 .help = "of Unix sockets in listen"},
	{.key = "socket_group", TUNNEL(socket_group), TYPE(ID),
	 .help = "group of Unix sockets in listen; default: the process's"},
	{.key = "max_connections", TUNNEL(max_connections), TYPE(UINT), .dflt = "200", .lo = 1, .hi = 65535,
	 .help = "connections at a time; at the limit accepting stops"},
	{.key = "session", TUNNEL(session), TYPE(SESSION), .dflt = "shared", .lo = 1, .hi = 64,
	 .help = "one session for all connections, one each, or up to N"},
	{.key = "open", TUNNEL(open_at_start), TYPE(WORDBOOL), .words = "demand|start", .dflt = "demand",
	 .help = "when the session is started"},
	{.key = "probe", TUNNEL(probe_ns), TYPE(DURATION), .dflt = "0", .lo = 0, .hi = 24 * HOUR,
	 .help = "between two tests of the whole way to host and port; 0: none"},
	{.key = "required", TUNNEL(required), TYPE(BOOL), .dflt = "no",
	 .help = "do not start when an address of listen cannot be had; no: only this tunnel stays down, and is retried"},
	{.key = "group", TUNNEL(groups), TYPE(LIST),
	 .help = "names by which open, close and status take several tunnels: group:NAME"},
	{.key = "one_shot", BOTH(one_shot), TYPE(BOOL), .dflt = "yes",
	 .help = "a running daemon serves connect, exec and forward with a session of its own"},
	{.key = "keepalive", BOTH(keepalive), TYPE(BOOL), .dflt = "yes",
	 .help = "keep sessions with open connections from idling out, by a word every third of idle_timeout"},
	{.key = "require_encryption", BOTH(require_encryption), TYPE(BOOL), .dflt = "no",
	 .help = "refuse sessions that are not encrypted with KMS"},
	{.key = "kms_key_id", BOTH(kms_key_id), TYPE(ID),
	 .help = "the only key that sessions may be encrypted with, as the document names it"},
	{.key = "connect_timeout", BOTH(connect_timeout_ns), TYPE(DURATION), .dflt = "30s", .lo = 100 * MS, .hi = HOUR,
	 .help = "how long a connection waits for a session"},
	{.key = "idle_timeout", BOTH(idle_timeout_ns), TYPE(DURATION), .dflt = "20m", .lo = 1 * S, .hi = 168 * HOUR,
	 .help = "the far end's idle time-out, and when surplus sessions without connections end"},
	{.key = "tcp_keepalive", TUNNEL(tcp_keepalive_ns), TYPE(DURATION), .dflt = "2m", .lo = 0, .hi = 2 * HOUR,
	 .help = "a local program that is silent so long is asked whether it is there; 0: never"},
	{.key = "udp_idle", TUNNEL(udp_idle_ns), TYPE(DURATION), .dflt = "60s", .lo = 1 * S, .hi = 24 * HOUR,
	 .help = "a flow without datagrams for so long ends (type = udp)"},
	{.key = "max_flows", TUNNEL(max_flows), TYPE(UINT), .dflt = "1000", .lo = 1, .hi = 16000,
	 .help = "addresses that may send at a time (type = udp)"},
	{.key = "udp_queue", TUNNEL(udp_queue), TYPE(SIZE), .dflt = "64K", .lo = 2 * K, .hi = 16 * M,
	 .help = "bytes of a flow that may wait; the oldest are dropped (type = udp)"},
	{.key = "bandwidth", TUNNEL(bandwidth), TYPE(SIZE), .dflt = "0", .lo = 0, .hi = 16 * G,
	 .help = "bytes a second in each direction, shared by its connections; 0: no limit"},
	{.key = "send_proxy", TUNNEL(send_proxy), TYPE(WORD), .words = "no|v1|v2", .dflt = "no",
	 .help = "tell the service who connected, by a PROXY header of that version"},
	{.key = "half_close_timeout", BOTH(half_close_timeout_ns), TYPE(DURATION), .dflt = "10m", .lo = 0, .hi = 168 * HOUR,
	 .help = "how long one direction may stay open alone; 0: for ever"},
	{.key = "ping_interval", BOTH(ping_interval_ns), TYPE(DURATION), .dflt = "30s", .lo = 100 * MS, .hi = HOUR,
	 .help = "between WebSocket pings"},
	{.key = "pong_timeout", BOTH(pong_timeout_ns), TYPE(DURATION), .dflt = "10s", .lo = 100 * MS, .hi = HOUR,
	 .help = "a ping without answer for so long is a broken link"},
	{.key = "reconnect_min", BOTH(reconnect_min_ns), TYPE(DURATION), .dflt = "100ms", .lo = 1 * MS, .hi = HOUR,
	 .help = "first back-off after a broken link"},
	{.key = "reconnect_max", BOTH(reconnect_max_ns), TYPE(DURATION), .dflt = "5s", .lo = 1 * MS, .hi = HOUR,
	 .help = "longest back-off"},
	{.key = "message_rate", BOTH(message_rate), TYPE(UINT), .lo = 0, .hi = 10000000,
	 .set_off = offsetof(struct td_tunnel_config, message_rate_set),
	 .help = "messages a second and session; 0: no limit; default 900 towards AWS, else none"},
	{.key = "session_memory", BOTH(session_memory), TYPE(SIZE), .dflt = "128M", .lo = 256 * K, .hi = 16 * G,
	 .help = "buffers of one session"},
	{.key = "stream_window", BOTH(stream_window), TYPE(SIZE), .dflt = "8M", .lo = 64 * K, .hi = 1 * G,
	 .help = "unread bytes of one connection; over several links up to four times as many"},
	{.key = "links", BOTH(links), TYPE(WORD), .words = "auto|1|2|3|4|5|6|7|8", .dflt = "auto",
	 .help = "TCP connections of one session, where gateway and agent are tunneld: auto has one, four while there is bulk, eight where it meets losses"},
	{.key = "max_payload", BOTH(max_payload), TYPE(SIZE32), .dflt = "32K", .lo = 1024, .hi = 64 * K,
	 .help = "largest message between two tunneld ends"},
	{.key = "direct", BOTH(direct), TYPE(WORD), .words = "auto|no|only", .dflt = "auto",
	 .help = "go straight to an agent that offers it and can be reached; only: fail where that is not so"},

	/* [agent] */
	{.key = "instance_id", AGENT(instance_id), TYPE(TARGET), .flags = TD_F_REQUIRED,
	 .help = "the name that targets use"},
	{.key = "allow", AGENT(allow), TYPE(RULES),
	 .help = "what may be dialed: HOST:PORT, CIDR:PORT, HOST:LOW-HIGH, HOST:*, unix:PATH, udp:HOST:PORT; default: loopback"},
	{.key = "deny", AGENT(deny), TYPE(RULES),
	 .help = "what may not, whatever allow says; default: metadata, link-local, multicast"},
	{.key = "reverse", AGENT(reverse), TYPE(RULES),
	 .help = "where reverse tunnels may have it listen: ADDRESS:PORT, ADDRESS:LOW-HIGH, CIDR:*, unix:PATH; default: nowhere"},
	{.key = "dial_timeout", AGENT(dial_timeout_ns), TYPE(DURATION), .dflt = "10s", .lo = 100 * MS, .hi = HOUR,
	 .help = "for one connection to a service"},
	{.key = "drain_timeout", AGENT(drain_timeout_ns), TYPE(DURATION), .lo = 0, .hi = HOUR,
	 .help = "as in [tunneld], for the agent"},
	{.key = "tcp_keepalive", AGENT(tcp_keepalive_ns), TYPE(DURATION), .dflt = "2m", .lo = 0, .hi = 2 * HOUR,
	 .help = "a service that is silent so long is asked whether it is there; 0: never"},
	{.key = "half_close_timeout", AGENT(half_close_timeout_ns), TYPE(DURATION), .dflt = "10m", .lo = 0, .hi = 168 * HOUR,
	 .help = "how long one direction may stay open alone; 0: for ever"},
	{.key = "ping_interval", AGENT(ping_interval_ns), TYPE(DURATION), .dflt = "30s", .lo = 100 * MS, .hi = HOUR,
	 .help = "between WebSocket pings"},
	{.key = "pong_timeout", AGENT(pong_timeout_ns), TYPE(DURATION), .dflt = "10s", .lo = 100 * MS, .hi = HOUR,
	 .help = "a ping without answer for so long is a broken link"},
	{.key = "reconnect_min", AGENT(reconnect_min_ns), TYPE(DURATION), .dflt = "100ms", .lo = 1 * MS, .hi = HOUR,
	 .help = "first back-off after a broken link"},
	{.key = "reconnect_max", AGENT(reconnect_max_ns), TYPE(DURATION), .dflt = "5s", .lo = 1 * MS, .hi = HOUR,
	 .help = "longest back-off"},
	{.key = "session_memory", AGENT(session_memory), TYPE(SIZE), .dflt = "128M", .lo = 256 * K, .hi = 16 * G,
	 .help = "buffers of one session"},
	{.key = "stream_window", AGENT(stream_window), TYPE(SIZE), .dflt = "8M", .lo = 64 * K, .hi = 1 * G,
	 .help = "unread bytes of one connection; over several links up to four times as many"},
	{.key = "max_payload", AGENT(max_payload), TYPE(SIZE32), .dflt = "32K", .lo = 1024, .hi = 64 * K,
	 .help = "largest message between two tunneld ends"},
	{.key = "max_sessions", AGENT(max_sessions), TYPE(UINT), .dflt = "1000", .lo = 1, .hi = 100000,
	 .help = "sessions at a time"},
	{.key = "max_streams", AGENT(max_streams), TYPE(UINT), .dflt = "1000", .lo = 1, .hi = 65535,
	 .help = "connections of one session at a time"},
	{.key = "require_challenge_ack", AGENT(require_challenge_ack), TYPE(BOOL), .dflt = "no",
	 .help = "refuse clients that do not confirm the KMS challenge (stock ones do not)"},
	{.key = "require_encryption", AGENT(require_encryption), TYPE(BOOL), .dflt = "no",
	 .help = "refuse sessions that are not encrypted with KMS"},
	{.key = "kms_key_id", AGENT(kms_key_id), TYPE(ID),
	 .help = "the only key that sessions may be encrypted with, as the document names it"},
	{.key = "audit_log", AGENT(audit_log), TYPE(AUDIT),
	 .help = "file of who did what, a JSON object a line, or syslog"},
	{.key = "shell", AGENT(shell), TYPE(BOOL), .dflt = "no",
	 .help = "serve shell and command sessions"},
	{.key = "shell_user", AGENT(shell_user), TYPE(ID),
	 .help = "whom shells run as; required with shell = yes"},
	{.key = "direct_listen", AGENT(direct_listen), TYPE(DIRECT),
	 .help = "ADDRESS:PORT where clients of sessions may come without the gateway's relay; default: nowhere"},
	{.key = "direct_addresses", AGENT(direct_addresses), TYPE(LIST),
	 .help = "HOST:PORT, … that such clients are to try; default: where direct_listen listens"},

	/* [gateway] */
	{.key = "listen", GATEWAY(addrs), TYPE(ADDRS), .flags = TD_F_REQUIRED,
	 .help = "addresses of the HTTPS port"},
	{.key = "public_url", GATEWAY(public_url), TYPE(URL),
	 .help = "what StreamUrl names; default: from listen"},
	{.key = "signed_hosts", GATEWAY(signed_hosts), TYPE(LIST),
	 .help = "host names that signatures may be for, beside that of public_url; *: any; default: our own"},
	{.key = "proxy_protocol", GATEWAY(proxy_protocol), TYPE(CIDRS),
	 .help = "balancers, by address, that say in a PROXY header for whom they connect; default: none"},
	{.key = "region", GATEWAY(region), TYPE(REGION),
	 .help = "region that signatures must name; default: any"},
	{.key = "certificate", GATEWAY(certificate), TYPE(FILE), .flags = TD_F_REQUIRED,
	 .help = "PEM certificate chain"},
	{.key = "private_key", GATEWAY(private_key), TYPE(KEYFILE), .flags = TD_F_REQUIRED,
	 .help = "PEM private key of certificate"},
	{.key = "client_ca", GATEWAY(client_ca), TYPE(FILE),
	 .help = "ask for client certificates of these authorities"},
	{.key = "audit_log", GATEWAY(audit_log), TYPE(AUDIT),
	 .help = "file of who did what, a JSON object a line, or syslog"},
	{.key = "store", GATEWAY(store), TYPE(STORE), .flags = TD_F_SECRET | TD_F_IF_USER,
	 .help = "session records; default: in state_dir. A Redis server can be shared by several gateways"},
	{.key = "store_ca", GATEWAY(store_ca), TYPE(FILE),
	 .help = "authorities for rediss://; default: those of the system"},
	{.key = "node", GATEWAY(node), TYPE(NODE),
	 .help = "name of this gateway among those that share the store; default: the host's"},
	{.key = "peer_listen", GATEWAY(peer_listen), TYPE(PEER),
	 .help = "ADDRESS:PORT where other nodes hand on links of our sessions; default: nowhere"},
	{.key = "peer_ca", GATEWAY(peer_ca), TYPE(FILE),
	 .help = "authorities of the other nodes' certificates"},
	{.key = "kms_key_file", GATEWAY(kms_key_file), TYPE(KEYFILE),
	 .help = "answer the two KMS calls with this key"},
	{.key = "kms_key_id", GATEWAY(kms_key_id), TYPE(ID),
	 .help = "key that sessions are encrypted with"},
	{.key = "encrypt_shells", GATEWAY(encrypt_shells), TYPE(BOOL), .dflt = "no",
	 .help = "have shell sessions encrypted"},
	{.key = "encrypt_ports", GATEWAY(encrypt_ports), TYPE(BOOL), .dflt = "no",
	 .help = "have port sessions encrypted (tunneld ends only)"},
	{.key = "idle_timeout", GATEWAY(idle_timeout_ns), TYPE(DURATION), .dflt = "20m", .lo = 100 * MS, .hi = 168 * HOUR,
	 .help = "sessions without stream messages end"},
	{.key = "max_session", GATEWAY(max_session_ns), TYPE(DURATION), .dflt = "0", .lo = 0, .hi = 8760 * HOUR,
	 .help = "longest duration of a session; 0: no limit"},
	{.key = "token_ttl", GATEWAY(token_ttl_ns), TYPE(DURATION), .dflt = "60s", .lo = 100 * MS, .hi = HOUR,
	 .help = "how long a token may be used"},
	{.key = "ping_interval", GATEWAY(ping_interval_ns), TYPE(DURATION), .dflt = "30s", .lo = 100 * MS, .hi = HOUR,
	 .help = "between WebSocket pings"},
	{.key = "pong_timeout", GATEWAY(pong_timeout_ns), TYPE(DURATION), .dflt = "10s", .lo = 100 * MS, .hi = HOUR,
	 .help = "a ping without answer for so long is a broken link"},
	{.key = "drain_timeout", GATEWAY(drain_timeout_ns), TYPE(DURATION), .lo = 0, .hi = HOUR,
	 .help = "as in [tunneld], for the gateway"},
	{.key = "relay_memory", GATEWAY(relay_memory), TYPE(SIZE), .dflt = "4M", .lo = 256 * K, .hi = 16 * G,
	 .help = "buffers per direction of a session"},
	{.key = "max_sessions", GATEWAY(max_sessions), TYPE(UINT), .dflt = "10000", .lo = 1, .hi = 1000000,
	 .help = "sessions at a time"},
	{.key = "per_peer_connections", GATEWAY(per_peer_connections), TYPE(UINT), .dflt = "256", .lo = 1, .hi = 1000000,
	 .help = "connections of one address"},
	{.key = "workers", GATEWAY(workers), TYPE(UINT), .lo = 1, .hi = 64,
	 .help = "threads that relay frames"},
	{.key = "direct", GATEWAY(direct), TYPE(BOOL), .dflt = "yes",
	 .help = "let ends that can reach each other go without the relay"},
	{.key = "direct_grace", GATEWAY(direct_grace_ns), TYPE(DURATION), .dflt = "60s", .lo = 0, .hi = 24 * HOUR,
	 .help = "how long they may while one of them is not connected here"},

	/* [user NAME], [instance ID] */
	{.key = "access_key_id", USER(keys[0].id), TYPE(KEYID), .flags = TD_F_REQUIRED,
	 .help = "key that requests are signed with"},
	{.key = "secret_access_key", USER(keys[0].secret), TYPE(SECRET), .flags = TD_F_REQUIRED | TD_F_SECRET,
	 .help = "secret of access_key_id"},
	{.key = "secret_access_key_file", USER(keys[0].file), TYPE(SECRETF),
	 .help = "file with the secret of access_key_id, in place of secret_access_key"},
	{.key = "access_key_id_2", USER(keys[1].id), TYPE(KEYID),
	 .help = "a second key, for the time in which keys change"},
	{.key = "secret_access_key_2", USER(keys[1].secret), TYPE(SECRET), .flags = TD_F_SECRET,
	 .help = "secret of access_key_id_2"},
	{.key = "secret_access_key_file_2", USER(keys[1].file), TYPE(SECRETF),
	 .help = "file with the secret of access_key_id_2"},
	{.key = "targets", USER(targets), TYPE(LIST), .flags = TD_F_REQUIRED,
	 .help = "instances that may be reached; * and ? match"},
	{.key = "documents", USER(documents), TYPE(LIST),
	 .help = "session documents that may be used; * and ? match; default: all"},
	{.key = "ports", USER(ports), TYPE(PORTS),
	 .help = "ports that may be reached: PORT, LOW-HIGH, *; default: all"},
	{.key = "hosts", USER(hosts), TYPE(LIST),
	 .help = "hosts that may be reached through a target, localhost for itself; * and ? match; default: all"},
	{.key = "certificate_name", USER(certificate_name), TYPE(ID),
	 .help = "name in the client certificate that this user must show"},
	{.key = "max_sessions", USER(quota.max_sessions), TYPE(UINT), .dflt = "0", .lo = 0, .hi = 1000000,
	 .help = "sessions of this user at a time; 0: a fair share of the gateway's"},
	{.key = "sessions_per_minute", USER(quota.sessions_per_minute), TYPE(UINT), .dflt = "0", .lo = 0, .hi = 1000000,
	 .help = "sessions of this user started in a minute; 0: no limit"},
	{.key = "bandwidth", USER(quota.bandwidth), TYPE(SIZE), .dflt = "0", .lo = 0, .hi = 16 * G,
	 .help = "bytes a second of all sessions of this user, both ways; 0: no limit"},
	{.key = "direct", USER(direct), TYPE(BOOL), .dflt = "yes",
	 .help = "may this user's sessions go without the relay"},
	{.key = "tags", INSTANCE(tags), TYPE(TAGS),
	 .help = "KEY=VALUE, …: by which targets and filters find it"},
	{.key = "reverse", USER(reverse), TYPE(BOOL), .dflt = "no",
	 .help = "may this user have agents listen for it"},
	{.key = "direct", INSTANCE(direct), TYPE(BOOL), .dflt = "yes",
	 .help = "may sessions of this instance go without the relay"},
	{.key = "access_key_id", INSTANCE(keys[0].id), TYPE(KEYID), .flags = TD_F_REQUIRED,
	 .help = "key that the agent signs with"},
	{.key = "secret_access_key", INSTANCE(keys[0].secret), TYPE(SECRET), .flags = TD_F_REQUIRED | TD_F_SECRET,
	 .help = "secret of access_key_id"},
	{.key = "secret_access_key_file", INSTANCE(keys[0].file), TYPE(SECRETF),
	 .help = "file with the secret of access_key_id, in place of secret_access_key"},
	{.key = "access_key_id_2", INSTANCE(keys[1].id), TYPE(KEYID),
	 .help = "a second key, for the time in which keys change"},
	{.key = "secret_access_key_2", INSTANCE(keys[1].secret), TYPE(SECRET), .flags = TD_F_SECRET,
	 .help = "secret of access_key_id_2"},
	{.key = "secret_access_key_file_2", INSTANCE(keys[1].file), TYPE(SECRETF),
	 .help = "file with the secret of access_key_id_2"},
	{.key = "certificate_name", INSTANCE(certificate_name), TYPE(ID),
	 .help = "name in the client certificate that this agent must show"},
	{.key = "max_sessions", INSTANCE(quota.max_sessions), TYPE(UINT), .dflt = "0", .lo = 0, .hi = 1000000,
	 .help = "sessions to this instance at a time; 0: no limit"},
	{.key = "sessions_per_minute", INSTANCE(quota.sessions_per_minute), TYPE(UINT), .dflt = "0", .lo = 0, .hi = 1000000,
	 .help = "sessions to this instance started in a minute; 0: no limit"},
	{.key = "bandwidth", INSTANCE(quota.bandwidth), TYPE(SIZE), .dflt = "0", .lo = 0, .hi = 16 * G,
	 .help = "bytes a second of all sessions to this instance, both ways; 0: no limit"},
};
/* clang-format on */
const int td_nopts = (int)TNL_COUNT(td_opts);

const struct td_opt *td_opt_next(enum td_section kind, const struct td_opt *o)
{
	for (o = o ? o + 1 : td_opts; o < td_opts + td_nopts; o++)
		if (td_opt_in(o, kind))
			return o;
	return NULL;
}

const struct td_opt *td_opt_find(enum td_section kind, const char *key)
{
	const struct td_opt *o = NULL;
	while ((o = td_opt_next(kind, o)) != NULL && strcmp(o->key, key) != 0)
		;
	return o;
}

int td_opt_line(const struct td_section_read *s, const char *key)
{
	const struct td_opt *o = td_opt_find(s->kind, key);
	return o ? s->key_line[o - td_opts] : 0;
}

bool td_option_at(int i, struct td_option *out)
{
	for (enum td_section kind = 0; kind < TD_SECTION_COUNT; kind++)
		for (const struct td_opt *o = NULL; (o = td_opt_next(kind, o)) != NULL;) {
			/* The keys of [aws] are listed once, there. */
			if (((o->flags & TD_F_AWS) && kind != TD_SECTION_AWS) || i-- > 0)
				continue;
			*out = (struct td_option){.section = td_sections[kind].shown,
						  .key = o->key,
						  .type = o->type->name ? o->type->name : o->words,
						  .dflt = o->dflt ? o->dflt : "",
						  .help = o->help,
						  .secret = (o->flags & TD_F_SECRET) && !(o->flags & TD_F_IF_USER)};
			if (o->flags & TD_F_REQUIRED)
				out->dflt = "required";
			return true;
		}
	return false;
}
