/* Configuration: INI (inih fed by our own reader), a typed option table, every
 * mistake reported as file:line: text.  This header is what the roles read. */
#ifndef TD_CONFIG_H
#define TD_CONFIG_H
#include "tunneld/base/log.h"
#include "tunneld/net/addr.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct td_strlist {
	char **v;
	int n;
};

enum { TD_ENDPOINTS_MAX = 8, TD_ENDPOINT_TEXT = 528 }; /* of one service; room for its URL */

/* [aws], and the same keys inside a [tunnel] (which inherits). NULL / 0: not set. */
struct td_aws_config {
	char *region, *profile;
	char *ssm_endpoint, *ssmmessages_endpoint; /* lists: URLs with commas between them, TD_ENDPOINTS_MAX at most */
	char *kms_endpoint, *sts_endpoint, *ecs_endpoint;
	char *ca_file, *client_certificate, *client_key;
	char *access_key_id, *secret_access_key, *session_token;
	char *secret_access_key_file; /* its content is in secret_access_key */
	char *proxy;		      /* http://[user:password@]host:port; "none" */
	struct td_strlist stream_hosts;
	int use_fips, use_dualstack; /* -1 not set */
};

/* Bytes beside the gateway, straight to the agent: when it can be, never, or not at all otherwise. */
enum td_direct_policy { TD_DIRECT_AUTO, TD_DIRECT_NO, TD_DIRECT_ONLY };
enum td_send_proxy { TD_SEND_PROXY_NO, TD_SEND_PROXY_V1, TD_SEND_PROXY_V2 };
/* Which of several instances that a target matches. */
enum td_target_select { TD_SELECT_ONLY, TD_SELECT_NEWEST, TD_SELECT_ANY };
/* What a tunnel carries and how it is told where to: a port; what SOCKS and HTTP CONNECT ask for; datagrams; what is
 * connected to at the agent. */
enum td_tunnel_type { TD_TUNNEL_TCP, TD_TUNNEL_PROXY, TD_TUNNEL_UDP, TD_TUNNEL_REVERSE };
/* Who may use a proxy, from a file: user:HASH lines, as crypt(5) has them. */
struct td_users {
	char *path; /* NULL: there is none */
	struct td_strlist lines;
};
enum td_session_policy { TD_SESSION_SHARED, TD_SESSION_PER_CONNECTION, TD_SESSION_POOL };

struct td_cidr {
	bool v6;
	uint8_t addr[16];
	int bits;
};
struct td_cidrs {
	struct td_cidr *v;
	int n;
};
struct td_rule {    /* one entry of allow/deny: HOST:PORT, HOST:LO-HI, HOST:*, CIDR:PORT, unix:PATH */
	char *host; /* name pattern (glob, case ignored), or NULL when cidr or path */
	char *path; /* of Unix sockets (glob), or NULL */
	bool udp;   /* datagrams; without it an entry of allow is for TCP, one of deny for both */
	struct td_cidr cidr;
	bool is_cidr;
	uint16_t port_lo, port_hi;
};
struct td_rules {
	struct td_rule *v;
	int n;
	bool set;
};

struct td_tunnel_config {
	char *name;
	size_t range; /* bytes of the name that are that of its range of ports; 0: it belongs to none */
	int line;     /* of its section */
	enum td_tunnel_type type;
	struct td_strlist listen; /* as written */
	struct td_strlist groups; /* that it can be opened, closed and shown by */
	struct td_addr *addrs;
	int naddrs;
	unsigned listen_ports, ports; /* while it is read: of each entry of listen, and of port */
	char *target;		      /* as of target or targets: a list of what lib/target.h parses, tried in order */
	enum td_target_select select;
	char *host, *document, *reason, *kms_key_id;
	char *bind, *connect; /* type = reverse: at the agent, here */
	uint16_t port;
	char *path;	       /* of a Unix socket at the target, in place of host and port */
	struct td_rules allow; /* a proxy: where to; not set: the agent's rules decide alone */
	struct td_users users; /* a proxy: who */
	unsigned max_destinations;
	unsigned socket_mode;	  /* of Unix sockets that it listens on */
	char *socket_group;	  /* and whose they are; NULL: not changed */
	unsigned max_connections; /* default 200 */
	enum td_session_policy session;
	unsigned pool;
	bool open_at_start; /* open = start | demand */
	uint64_t probe_ns;  /* between looks through the whole tunnel; 0: none */
	bool required;	    /* its addresses must be had at the start */
	bool keepalive;	    /* default yes */
	bool one_shot;	    /* the daemon's session serves connect, exec and forward too; default yes */
	bool require_encryption;
	uint64_t connect_timeout_ns, idle_timeout_ns, half_close_timeout_ns, ping_interval_ns, pong_timeout_ns;
	uint64_t tcp_keepalive_ns; /* of the local sockets; 0: off */
	uint64_t reconnect_min_ns, reconnect_max_ns;
	unsigned message_rate;
	bool message_rate_set;
	unsigned links; /* 0: auto */
	uint64_t session_memory, stream_window;
	unsigned max_payload;
	enum td_direct_policy direct;
	uint64_t udp_idle_ns, udp_queue; /* of a flow of datagrams */
	unsigned max_flows;
	enum td_send_proxy send_proxy;
	uint64_t bandwidth;	  /* bytes a second, of each direction; 0: no limit */
	struct td_aws_config aws; /* merged with [aws] */
};

/* Is that its name, or the name of its range? */
bool td_tunnel_is_called(const struct td_tunnel_config *t, const char *name);
/* The one of that name, else the first port of the range; NULL: none. */
const struct td_tunnel_config *td_tunnel_find(const struct td_tunnel_config *v, int n, const char *name);
/* For log lines: the host, the path of the Unix socket, or "-". */
const char *td_tunnel_host(const struct td_tunnel_config *t);
/* A pattern of digits, dots and wildcards, as 10.0.*: it means addresses, and matches no name that begins so. */
bool td_pattern_means_address(const char *pattern);
/* Is a proxy's destination among the rules?  Names match as they are asked for, networks match addresses; nothing is
 * resolved. */
bool td_rules_have(const struct td_rules *r, const char *host, uint16_t port);

struct td_forwarder_config {
	struct td_tunnel_config *tunnels;
	int ntunnels;
	struct td_tunnel_config *aliases;
	int naliases;		   /* [alias NAME]: for connect, forward and shell; no listen, port 22 */
	uint64_t drain_timeout_ns; /* 10 s */
};

struct td_agent_config {
	char *audit_log; /* a path, or "syslog"; NULL: none */
	char *instance_id, *kms_key_id;
	struct td_rules allow, deny; /* deny.set with n 0: explicitly nothing */
	struct td_rules reverse;     /* what clients may have bound; n 0: nothing */
	uint64_t dial_timeout_ns, drain_timeout_ns, ping_interval_ns, pong_timeout_ns;
	uint64_t reconnect_min_ns, reconnect_max_ns, half_close_timeout_ns;
	uint64_t tcp_keepalive_ns; /* of dialed sockets; 0: off */
	uint64_t session_memory, stream_window;
	unsigned max_payload, max_sessions, max_streams;
	bool require_challenge_ack, require_encryption;
	bool shell;
	char *shell_user;		    /* shell = yes, shell_user = NAME; off by default */
	char *direct_listen;		    /* where clients may come without the gateway; NULL: nowhere */
	struct td_strlist direct_addresses; /* what they are told; n 0: where we listen */
	struct td_aws_config aws;
};

/* What one user, or the sessions to one instance, may take. 0: no limit of its own. */
struct td_quota {
	unsigned max_sessions, sessions_per_minute;
	uint64_t bandwidth; /* bytes a second, both ways together */
};
/* The keys of a user or an instance; the second one may be there while they change.  What a file holds is in `secret`.
 */
enum { TD_KEYS_MAX = 2 };
struct td_access_key {
	char *id, *secret, *file;
};
struct td_user_config {
	char *name;
	struct td_access_key keys[TD_KEYS_MAX];
	char *certificate_name;				    /* of the client certificate that it must show; NULL: any */
	struct td_strlist targets, documents, ports, hosts; /* patterns; the last three empty: all */
	struct td_quota quota;
	bool direct, reverse;
	int line;
};
struct td_instance_config {
	char *id;
	struct td_access_key keys[TD_KEYS_MAX];
	char *certificate_name; /* as of a user */
	struct td_quota quota;
	struct td_strlist tags; /* KEY=VALUE, each key once */
	bool direct;
	int line;
};
#define TD_NODE_MAX 32u
struct td_gateway_config {
	struct td_addr *addrs;
	int naddrs;
	char *public_url, *region;
	struct td_strlist signed_hosts; /* n 0: our own */
	struct td_cidrs proxy_protocol; /* who says by a PROXY header for whom it connects; n 0: nobody */
	char *certificate, *private_key, *client_ca;
	char *audit_log;    /* a path, or "syslog"; NULL: none */
	char *store;	    /* sqlite:PATH, or the URL of a Redis server; NULL: in state_dir */
	char *store_ca;	    /* of rediss://; NULL: the system's */
	char *peer_listen;  /* where other nodes reach us; NULL: nowhere */
	char *peer_ca;	    /* authorities of their certificates */
	char *node;	    /* our name among those that share the store; NULL: from the host's */
	char *kms_key_file; /* serves the two KMS calls */
	char *kms_key_id;   /* key that sessions are encrypted with; NULL: none */
	bool encrypt_shells, encrypt_ports;
	uint64_t idle_timeout_ns; /* 20 min */
	uint64_t max_session_ns;  /* 0: none */
	uint64_t token_ttl_ns;	  /* 60 s */
	uint64_t ping_interval_ns, pong_timeout_ns, drain_timeout_ns;
	uint64_t relay_memory; /* per direction and session, 4 MiB */
	unsigned max_sessions, per_peer_connections;
	unsigned workers;	  /* loops that relay; 0: one for each core */
	bool direct;		  /* may clients and agents that reach each other go without us? */
	uint64_t direct_grace_ns; /* how long they may while one of them is not in reach of us */
	struct td_user_config *users;
	int nusers;
	struct td_instance_config *instances;
	int ninstances;
};

struct td_config {
	int refs;	 /* holders besides the first */
	char *path;	 /* of the file; NULL: embedded */
	char *state_dir; /* as configured (absolute) or NULL; before a role starts: its own folder, there and locked */
	enum tnl_log_level log_level;
	enum td_log_format log_format;
	bool log_connections;	 /* default yes */
	uint64_t process_memory; /* 96 MiB: memory_limit */
	bool control_socket;
	struct td_addr *http; /* where metrics, checks and the status page are; NULL: nowhere */
	int nhttp;
	struct td_strlist http_hosts;
	struct td_strlist include;  /* as written in [tunneld] */
	struct td_strlist included; /* the files that were read beside path */
	char *user;		    /* whom the process becomes when root starts it; NULL: nobody else */
	bool seccomp;		    /* default yes */
	bool has_forwarder, has_agent, has_gateway; /* a [tunnel], [agent], [gateway] section is there */
	struct td_aws_config aws;
	struct td_forwarder_config fwd;
	struct td_agent_config agent;
	struct td_gateway_config gw;
};

/* Roles whose sections must be there; ANY: at least one of them; FILES: certificates, keys and the like
 * that cannot be read are mistakes, not warnings; AGAIN: for a process that serves meanwhile and waits for no pipe (the
 * file itself may be one else, what it names never).  Whatever stands in the file is checked in any case. */
enum td_config_roles {
	TD_ROLE_FORWARDER = 1,
	TD_ROLE_AGENT = 2,
	TD_ROLE_GATEWAY = 4,
	TD_ROLE_ANY = 8,
	TD_ROLE_FILES = 16,
	TD_ROLE_AGAIN = 32
};
/* Reads and checks the file for the roles. Every mistake goes to `errors` as "file:line: text\n", in the
 * order of lines; returns NULL when there was one. Warnings go there too, prefixed "warning: ". */
struct td_config *td_config_load(const char *path, unsigned roles, FILE *errors);
struct td_config *td_config_parse(const char *text, const char *name_for_errors, const char *dir, unsigned roles,
				  FILE *errors);
struct td_config *td_config_ref(const struct td_config *c); /* one more holder; each calls td_config_free */
void td_config_free(struct td_config *c);
/* -c, $TUNNELD_CONFIG, ~/.config/…, /etc/…; heap string (tnl_free) or NULL when none exists. */
char *td_config_find(const char *arg);
/* Would a reload change this tunnel? */
/* Its name among those that share a store: as configured, else with Redis the first part of the host's name. */
void td_gateway_node(const struct td_gateway_config *g, char out[TD_NODE_MAX + 1]);
bool td_tunnel_same(const struct td_tunnel_config *a, const struct td_tunnel_config *b);

/* A configuration of that one tunnel (or alias) alone, with all its settings, which listens at these addresses instead
 * (n 0: nowhere) and keeps no state. */
struct td_config *td_config_single(const struct td_config *from, const struct td_tunnel_config *t,
				   const struct td_addr *listen, int n);
/* Another destination; host NULL: the target itself. */
void td_config_name_host(struct td_tunnel_config *t, const char *host, uint16_t port);

/* *c becomes the settings of its sessions, all but what makes each one: id, type, callbacks.  amazon: they go to AWS.
 */
struct tnl_session_config;
void td_tunnel_session(const struct td_tunnel_config *t, bool amazon, struct tnl_session_config *c);
void td_agent_session(const struct td_agent_config *a, bool amazon, struct tnl_session_config *c);

/* Fills what `a` left open from another block, as a [tunnel] does from [aws]; strings are copied.  Credentials, and the
 * certificate with its key, go as a whole. */
void td_aws_config_inherit(struct td_aws_config *a, const struct td_aws_config *from);
/* `a` (a block, or zeroed) becomes a copy; what it held is freed. */
void td_aws_config_copy(struct td_aws_config *a, const struct td_aws_config *from);
void td_aws_config_clear(struct td_aws_config *a); /* frees and wipes; as if nothing had been set */
bool td_aws_config_same(const struct td_aws_config *a, const struct td_aws_config *b);
/* The i-th of the files that the block names; NULL: no more. */
const char *td_aws_config_file(const struct td_aws_config *a, int i);

bool td_cidr_has(const struct td_cidr *c, bool v6, const uint8_t *addr); /* 4 or 16 bytes */
bool td_cidrs_have(const struct td_cidrs *l, const struct td_addr *a); /* IPv4 also in its IPv6 form; no unix socket */
/* Is the port one of the entry (PORT, LOW-HIGH, or a pattern of digits, * and ?)?  *valid: is it such an entry? */
bool td_config_port_in(const char *entry, uint16_t port, bool *valid);

/* The option table, for listings and tests: i from 0 until false. */
struct td_option {
	const char *section;		      /* "tunneld", "tunnel NAME", … */
	const char *key, *type, *dflt, *help; /* dflt: "" none, "required" */
	bool secret;			      /* its value is never shown */
};
bool td_option_at(int i, struct td_option *out);

#endif
