/* Configuration: every mistake with its line, the sample files, defaults, inheritance, equality. */
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/num.h"
#include "tests/daemon/config/config_said.h"
#include "tests/daemon/config/config_same.h"
#include "tunneld/config/internal.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC_NS 1000000000ull

static const char forwarder_sample[] =
    "; forwarder\n[tunneld]\nlog_level = info            ; error, warn, info, debug\n"
    "log_format = text           ; text or json\ndrain_timeout = 10s\n\n"
    "[aws]                       ; defaults for every tunnel; each key may stand in a tunnel too\n"
    "region = eu-west-1\nssm_endpoint = https://127.0.0.1:8443\nca_file = ca.pem\n"
    "access_key_id = AKIDEXAMPLE       ; or from the environment or the shared credentials file\n"
    "secret_access_key = …\n\n[tunnel postgres]\nlisten = 127.0.0.1:15432\ntarget = i-0123456789abcdef0\n"
    "host = db.internal          ; optional: a host behind the target\nport = 5432\nmax_connections = 200\n";
static const char agent_sample[] =
    "; agent\n[agent]\ninstance_id = i-0123456789abcdef0\nregion = eu-west-1\n"
    "ssmmessages_endpoint = https://127.0.0.1:8443\nca_file = ca.pem\nallow = 127.0.0.1:*, db.internal:5432\n"
    "access_key_id = …            ; or from the environment or the shared credentials file\nsecret_access_key = …\n";
static const char gateway_sample[] =
    "; gateway\n[gateway]\nlisten = 127.0.0.1:8443\n"
    "public_url = https://127.0.0.1:8443   ; what StreamUrl names; default: from listen\n"
    "certificate = gateway.pem\nprivate_key = gateway.key\n[user ops]\naccess_key_id = AKIDEXAMPLE\n"
    "secret_access_key = s-of-tests\ntargets = i-*\n[instance i-0123456789abcdef0]\naccess_key_id = …\nsecret_access_key = s-of-tests\n";

static void test_samples(void **s)
{
	struct td_config *c = parse_ok(forwarder_sample, TD_ROLE_FORWARDER);
	assert_int_equal(c->fwd.ntunnels, 1);
	const struct td_tunnel_config *t = &c->fwd.tunnels[0];
	assert_string_equal(t->name, "postgres");
	assert_string_equal(t->host, "db.internal");
	assert_int_equal(t->port, 5432);
	assert_int_equal(t->naddrs, 1);
	assert_int_equal(t->max_connections, 200);
	assert_string_equal(t->aws.ca_file, "/base/ca.pem");
	assert_string_equal(t->aws.access_key_id, "AKIDEXAMPLE");
	assert_string_equal(t->aws.secret_access_key, "…");
	assert_int_equal(c->log_level, TNL_LOG_INFO);
	assert_true(c->fwd.drain_timeout_ns == 10 * SEC_NS && c->agent.drain_timeout_ns == 10 * SEC_NS);
	td_config_free(c);

	c = parse_ok(agent_sample, TD_ROLE_AGENT);
	assert_int_equal(c->agent.allow.n, 2);
	assert_true(c->agent.allow.v[0].is_cidr && c->agent.allow.v[0].cidr.bits == 32 &&
		    c->agent.allow.v[0].port_hi == 65535);
	assert_string_equal(c->agent.allow.v[1].host, "db.internal");
	assert_false(c->agent.deny.set);
	td_config_free(c);

	c = parse_ok(gateway_sample, TD_ROLE_GATEWAY);
	assert_string_equal(c->gw.private_key, "/base/gateway.key");
	assert_int_equal(c->gw.nusers + c->gw.ninstances, 2);
	assert_string_equal(c->gw.users[0].targets.v[0], "i-*");
	assert_true(c->gw.idle_timeout_ns == 1200 * SEC_NS && c->gw.max_session_ns == 0);
	td_config_free(c);

	/* All three in one file; each command requires its own part. */
	char *all = NULL;
	assert_true(asprintf(&all, "%s%s%s", forwarder_sample, agent_sample, gateway_sample) > 0);
	c = parse_ok(all, TD_ROLE_FORWARDER | TD_ROLE_AGENT | TD_ROLE_GATEWAY);
	td_config_free(c);
	free(all);
	expect(agent_sample, TD_ROLE_GATEWAY | TD_ROLE_FORWARDER,
	       "t.ini: there is no [tunnel NAME] section\nt.ini: there is no [gateway] section\n"
	       "warning: t.ini:6: ca_file: cannot read /base/ca.pem: No such file or directory\n");
}

/* One kind of mistake per line of one file; each is named with its line, in order. */
static const struct {
	const char *text, *said;
} mistakes[] = {
    {"stray = 1\n", "t.ini:1: stray comes before the first section\n"},
    {"[tunneld]\n", ""},
    {"log_level = loud\n", "t.ini:3: log_level = loud: must be one of error|warn|info|debug\n"},
    {"log_format : xml\n", "t.ini:4: log_format = xml: must be one of text|json\n"},
    {"drain_timeout = 10\n", "t.ini:5: drain_timeout = 10: must be a duration with a unit: 150ms, 10s, 5m, 1h30m\n"},
    {"drain_timeout = 10s\n", "t.ini:6: drain_timeout is there already, on line 5\n"},
    {"memory_limit = 16Q\n", "t.ini:7: memory_limit = 16Q: must be a size: 512K, 16M, 1G or bytes\n"},
    {"control_socket = maybe\n", "t.ini:8: control_socket = maybe: must be yes or no\n"},
    {"loglevel = info\n", "t.ini:9: unknown key loglevel in [tunneld]; is it log_level?\n"},
    {"listen = 127.0.0.1:1\n", "t.ini:10: listen does not belong in [tunneld] (but in [tunnel])\n"},
    {"just words\n", "t.ini:11: neither a [section] nor KEY = VALUE\n"},
    /* empty, unknown */
    {"[nonsense]\n",
     "t.ini:12: unknown section [nonsense]; there are [tunneld], [aws], [tunnel NAME], [alias NAME], [agent], "
     "[gateway], [user NAME] and [instance ID]\n"},
    {"[aws\n", "t.ini:13: the ] of the section is missing\n"},
    {"[aws] x\n", "t.ini:14: text behind the ] of the section\n"},
    {"[aws]\n", ""},
    {"ssm_endpoint = http://example.com\n",
     "t.ini:16: ssm_endpoint = http://example.com: http:// is for loopback addresses only; use https://\n"},
    {"access_key_id = A\n", "t.ini:17: access_key_id is set without secret_access_key\n"},
    {"proxy = socks5://x:1\n", "t.ini:18: proxy: must be http://[USER:PASSWORD@]HOST:PORT or none\n"},
    {"[tunnel]\n", "t.ini:19: [tunnel] requires one name without white space: [tunnel NAME]\n"},
    {"listen = 127.0.0.1:99999\n", "t.ini:20: listen = 127.0.0.1:99999: port must be a number from 0 to 65535\n"},
    {"target = i 1\n",
     "t.ini:21: target = i 1: is no instance or target id (like i-0123456789abcdef0), nor tag:KEY=VALUE, name:HOST "
     "or ecs:CLUSTER/SERVICE\n"},
    {"port = 0\n", "t.ini:22: port = 0: out of range, 1 to 65535\n"},
    {"max_connections = 12x\n", "t.ini:23: max_connections = 12x: must be a number\n"},
    {"session = pool 0\n", "t.ini:24: session = pool 0: must be shared, per-connection or pool N (N from 1 to 64)\n"},
    {"open = never\n", "t.ini:25: open = never: must be one of demand|start\n"},
    {"ping_interval = 5 m\n", "t.ini:26: ping_interval = 5 m: must be a duration with a unit: 150ms, 10s, 5m, 1h30m\n"},
    {"reason =\n", "t.ini:27: reason: the value is missing\n"},
    /* nothing in it */
    {"[tunnel b]\n", "t.ini:28: [tunnel b] requires listen\n"
		     "t.ini:28: [tunnel b] requires target\n"
		     "t.ini:28: [tunnel b] requires port\n"},
    {"[tunnel b]\n", "t.ini:29: section [tunnel b] is there already, on line 28\n"},
    {"listen = 127.0.0.1:7, [::1]:7, 0.0.0.0:7\n", "t.ini:30: listen: 0.0.0.0:7 is taken already, on line 30\n"},
    {"target = i-1\nport = 65536\n", "t.ini:32: port = 65536: out of range, 1 to 65535\n"},
    {"a\tb\001c = 1\n", "t.ini:33: control character 0x01\n"},
    {"host = \xff\n", "t.ini:34: not valid UTF-8\n"},
    {"= 5\n", "t.ini:35: neither a [section] nor KEY = VALUE\n"},
    {"[agent]\n", "t.ini:36: [agent] requires instance_id\n"},
    {"allow = db, 10.0.0.0/33:1, 10.1.0.0/8:1, x:9-2, fe80::1:1, [::1]:0, unix:run\n",
     "t.ini:37: allow = db: the port is missing (* is any)\n"
     "t.ini:37: allow = 10.0.0.0/33:1: the prefix length is not a number from 0 to 32\n"
     "t.ini:37: allow = 10.1.0.0/8:1: the address has bits set behind its prefix length\n"
     "t.ini:37: allow = x:9-2: the range of ports is upside down\n"
     "t.ini:37: allow = fe80::1:1: IPv6 addresses stand in brackets\n"
     "t.ini:37: allow = [::1]:0: the port is neither a number from 1 to 65535, nor LOW-HIGH, nor *\n"
     "t.ini:37: allow = unix:run: the path of a Unix socket begins with a slash\n"},
    {"shell = yes\n", "t.ini:38: shell = yes requires shell_user\n"},
    {"[user u]\n", "t.ini:39: [user u] requires access_key_id\n"
		   "t.ini:39: [user u] requires secret_access_key\n"
		   "t.ini:39: [user u] requires a [gateway] in the same file\n"},
    {"targets = i-1,,i-2\n", "t.ini:40: targets: an entry of the list is empty\n"},
    {"direct = only\n", "t.ini:41: direct = only: must be yes or no\n"},
    {"access_key_id_2 = B\n", "t.ini:42: access_key_id_2 is set without secret_access_key_2\n"},
    {"ports = 22, 1-1023, 80*, 0, 9-2, ssh\n",
     "t.ini:43: ports = 0: must be a port from 1 to 65535, LOW-HIGH, or *\n"
     "t.ini:43: ports = 9-2: must be a port from 1 to 65535, LOW-HIGH, or *\n"
     "t.ini:43: ports = ssh: must be a port from 1 to 65535, LOW-HIGH, or *\n"},
};

static void test_every_mistake(void **s)
{
	char text[4000] = "", said[8000] = "";

	for (size_t i = 0; i < TNL_COUNT(mistakes); i++) {
		strcat(text, mistakes[i].text);
		strcat(said, mistakes[i].said);
	}
	expect(text, TD_ROLE_FORWARDER, said);
}

/* Letters that were left out, mistaken or swapped. */
static void test_near_keys(void **s)
{
	expect("[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\nprot = 2\n", 0,
	       "t.ini:1: [tunnel a] requires port\nt.ini:4: unknown key prot in [tunnel]; is it port?\n");
	expect(TUNNEL "[tunneld]\nlog_levle = info\nlg_format = text\ndarin_timeuot = 5s\nfrobnicate = 1\n", 0,
	       "t.ini:6: unknown key log_levle in [tunneld]; is it log_level?\n"
	       "t.ini:7: unknown key lg_format in [tunneld]; is it log_format?\n"
	       "t.ini:8: unknown key darin_timeuot in [tunneld]; is it drain_timeout?\n"
	       "t.ini:9: unknown key frobnicate in [tunneld]\n");
}

/* Several endpoints: each is looked at, and kept as it is compared. */
static void test_endpoints(void **s)
{
#define AWS "[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\nport = 2\n"
	struct td_config *c = parse_ok(AWS "ssm_endpoint = https://a:8443/ ,https://b\n", TD_ROLE_FORWARDER);
	struct td_config *d = parse_ok("[aws]\nssm_endpoint = https://a:8443, https://b/\n" AWS, TD_ROLE_FORWARDER);

	assert_string_equal(c->fwd.tunnels[0].aws.ssm_endpoint, "https://a:8443,https://b");
	assert_true(td_tunnel_same(&c->fwd.tunnels[0], &d->fwd.tunnels[0]));
	td_config_free(c);
	td_config_free(d);
	expect(AWS "ssm_endpoint = https://a, http://b.example,https://a/, https://c/x,\n", 0,
	       "t.ini:5: ssm_endpoint: an entry of the list is empty\n"
	       "t.ini:5: ssm_endpoint = http://b.example: http:// is for loopback addresses only; use https://\n"
	       "t.ini:5: ssm_endpoint = https://a: stands there twice\n"
	       "t.ini:5: ssm_endpoint = https://c/x: a path or query does not belong here\n");
	expect(AWS
	       "ssmmessages_endpoint = https://a,https://b,https://c,https://d,https://e,https://f,https://g,https://h,"
	       "https://i\n",
	       0, "t.ini:5: ssmmessages_endpoint = https://i: is one too many: at most 8\n");
	expect(AWS "kms_endpoint = https://a,https://b\n", 0,
	       "t.ini:5: kms_endpoint = https://a,https://b: a path or query does not belong here\n");
#undef AWS
}

#define GW "listen = 127.0.0.1:0\ncertificate = c\nprivate_key = k\n"

/* What parses and yet cannot be meant. */
static void test_odd_configurations(void **s)
{
	static const struct {
		const char *text, *said;
	} odd[] = {
	    {"[gateway]\n" GW "", "warning: t.ini:1: there is no [instance ID] section: no agent can connect\n"
				  "warning: t.ini:1: there is no [user NAME] section: nobody can start a session\n"},
	    {"[gateway]\n" GW "[instance i-1]\naccess_key_id = A\nsecret_access_key = s-of-tests\n"
	     "[user u]\naccess_key_id = B\nsecret_access_key = s-of-tests\ntargets = web-*, i-?\n",
	     "warning: t.ini:11: targets: web-* matches no [instance] of this file\n"},
	    {"[tunnel a]\nlisten = 127.0.0.1:1\ntarget = web1\nport = 2\n",
	     "warning: t.ini:3: target = web1: neither an instance id (i-…, mi-…, ecs:…) nor an [instance] of this "
	     "file\n"},
	    {TUNNEL
	     "[gateway]\n" GW "[instance web1]\naccess_key_id = A\nsecret_access_key = s-of-tests\n"
	     "[user u]\naccess_key_id = B\nsecret_access_key = s-of-tests\ntargets = w*\n[alias b]\ntarget = web1\n",
	     ""},
	};
	for (size_t i = 0; i < TNL_COUNT(odd); i++) {
		char *said = NULL;
		struct td_config *c = parse_said(odd[i].text, 0, &said);
		assert_non_null(c);
		if (!strstr(said, odd[i].said) || (!*odd[i].said && strstr(said, "target")))
			fail_msg("\"%s\" lacks \"%s\"", said, odd[i].said);
		free(said);
		td_config_free(c);
	}
	expect("[alias a]\ntargets = i-1, tag:env=prod, role=db , ecs:c/s\nselect = any\n[alias b]\ntarget = i-1, i-2\n"
	       "[alias c]\ntargets = i-1,,i-2\n[alias d]\ntarget = i-1\ntargets = i-2\n[alias e]\nselect = first\n"
	       "[alias f]\ntargets = a,b,c,d,e,f,g,h,i\n[alias g]\ntarget = tag:Name\n",
	       0,
	       "t.ini:5: target = i-1, i-2: is a list: use targets for several\n"
	       "t.ini:7: targets = i-1,,i-2: an entry of the list is empty\n"
	       "t.ini:10: target and targets exclude each other\n"
	       "t.ini:11: [alias e] requires target\n"
	       "t.ini:12: select = first: must be one of only|newest|any\n"
	       "t.ini:14: targets = a,b,c,d,e,f,g,h,i: at most 8 targets\n"
	       "t.ini:16: target = tag:Name: tag:KEY=VALUE is required\n");
	expect("[gateway]\n" GW
	       "[instance i-1]\naccess_key_id = A\nsecret_access_key = s-of-tests\ntags = Name=x, Name =y, z\n",
	       0,
	       "warning: t.ini:1: there is no [user NAME] section: nobody can start a session\n"
	       "warning: t.ini:3: certificate: cannot read /base/c: No such file or directory\n"
	       "warning: t.ini:4: private_key: cannot read /base/k: No such file or directory\n"
	       "t.ini:8: tags = Name=y: has that key a second time\n"
	       "t.ini:8: tags = z: must be KEY=VALUE\n");
#define SHORT "less than 8 characters are soon guessed: take what openssl rand -base64 30 prints\n"
	expect("[gateway]\n" GW "[user u]\naccess_key_id = A\nsecret_access_key = 1234567\ntargets = *\n"
	       "[instance i-1]\naccess_key_id = B\nsecret_access_key = s\n",
	       0,
	       "warning: t.ini:3: certificate: cannot read /base/c: No such file or directory\n"
	       "warning: t.ini:4: private_key: cannot read /base/k: No such file or directory\n"
	       "t.ini:7: secret_access_key: " SHORT "t.ini:11: secret_access_key: " SHORT);
	expect(
	    "[aws]\naccess_key_id = A\nsecret_access_key = put-the-secret-of-user-ops-here\n" TUNNEL, 0,
	    "t.ini:3: secret_access_key: is the sample's: put a secret of your own there (openssl rand -base64 30)\n");
}

static void test_lines(void **s)
{
	char *said = NULL;
	struct td_config *c = parse_ok(
	    "\xef\xbb\xbf# c\r\n  ; c\r\n\t[ tunnel   a ] ; c\r\n   listen=unix:run/s.sock\r\n\ttarget = i-1\r\n"
	    "  port: 2 ; c\r\n\r\n reason = a;b # c \xc3\xa4",
	    0);
	const struct td_tunnel_config *t = &c->fwd.tunnels[0];
	assert_string_equal(t->listen.v[0], "unix:/base/run/s.sock");
	assert_string_equal(t->reason, "a;b # c \xc3\xa4");
	assert_int_equal(t->port, 2);
	assert_int_equal(t->line, 3);
	td_config_free(c);

	/* Longer than inih can take in one piece: whole, comment cut. */
	char text[20000], token[3001];
	memset(token, 'x', 3000);
	token[3000] = '\0';
	snprintf(text, sizeof(text), "[aws]\naccess_key_id = A\nsecret_access_key = B\nsession_token = %s ; c\n" TUNNEL,
		 token);
	c = parse_ok(text, TD_ROLE_FORWARDER);
	assert_string_equal(c->fwd.tunnels[0].aws.session_token, token);
	td_config_free(c);

	char big[9000];
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	snprintf(text, sizeof(text), "[aws]\nprofile = %s\n%s\n[%.200s]\n%.150s = 1\n", big, token, big, big);
	c = parse_said(text, 0, &said);
	assert_null(c);
	assert_non_null(strstr(said, "t.ini:2: the line is longer than 8192 bytes\n"));
	assert_non_null(strstr(said, "t.ini:3: neither a [section] nor KEY = VALUE\n"));
	assert_non_null(strstr(said, "t.ini:4: the section's name is longer than 128 bytes\n"));
	free(said);
}

static void test_secrets_not_shown(void **s)
{
	char *said = NULL;
	assert_null(parse_said("[aws]\naccess_key_id = A\nsecret_access_key = PLANTED 1\nsession_token =PLANTED x\n"
			       "proxy = http://u:PLANTED@h/x\nsecret_acces_key = PLANTED\nPLANTED\n",
			       0, &said));
	assert_non_null(strstr(said, "t.ini:3: secret_access_key: white space does not belong here\n"));
	assert_non_null(strstr(said, "t.ini:5: proxy: "));
	assert_null(strstr(said, "PLANTED"));
	free(said);
}

static void test_inherit(void **s)
{
	struct td_config *c =
	    parse_ok("[tunnel a]\nlisten=127.0.0.1:0\ntarget=i-1\nport=1\nprofile = p\nca_file=/x\n"
		     "[tunnel b]\nlisten=127.0.0.1:0\ntarget=i-1\nport=1\nuse_fips = no\n"
		     "[alias box]\ntarget = mi-2\n"
		     "[aws]\nregion=eu-west-1\naccess_key_id=A\nsecret_access_key=a/+=\nuse_fips=yes\nca_file=c.pem\n"
		     "stream_hosts = a.example, b.example\n",
		     0);
	const struct td_tunnel_config *a = &c->fwd.tunnels[0], *b = &c->fwd.tunnels[1];
	assert_string_equal(a->aws.region, "eu-west-1");
	assert_null(a->aws.access_key_id); /* a profile of its own: not half of somebody else's keys */
	assert_string_equal(a->aws.ca_file, "/x");
	assert_int_equal(a->aws.use_fips, 1);
	assert_string_equal(b->aws.secret_access_key, "a/+=");
	assert_int_equal(b->aws.use_fips, 0);
	assert_int_equal(b->aws.stream_hosts.n, 2);
	assert_string_equal(c->fwd.aliases[0].aws.region, "eu-west-1");
	assert_int_equal(c->fwd.aliases[0].port, 22);
	td_config_free(c);
}

static void test_rules(void **s)
{
	struct td_config *c =
	    parse_ok("[agent]\ninstance_id=i-1\nallow=*.db.internal:5432-5440, *:22, 10.0.0.0/8:*, [fd00::/8]:1, "
		     "[fd00::]/16:2, [::ffff:10.2.0.0/112]:3\ndeny =\n",
		     0);
	const struct td_rules *r = &c->agent.allow;
	assert_int_equal(r->n, 6);
	assert_string_equal(r->v[0].host, "*.db.internal");
	assert_true(r->v[0].port_lo == 5432 && r->v[0].port_hi == 5440);
	assert_true(r->v[2].is_cidr && !r->v[2].cidr.v6 && r->v[2].cidr.addr[0] == 10 && r->v[2].cidr.bits == 8);
	assert_true(r->v[3].cidr.v6 && r->v[3].cidr.bits == 8 && r->v[4].cidr.bits == 16 && r->v[4].port_lo == 2);
	assert_true(r->v[5].is_cidr && !r->v[5].cidr.v6 && r->v[5].cidr.bits == 16 && r->v[5].cidr.addr[1] == 2);
	assert_true(c->agent.deny.set && c->agent.deny.n == 0);
	td_config_free(c);
}

static void test_many_addresses(void **s)
{
	char text[1000] = "[tunnel a]\ntarget = i-1\nport = 2\nlisten = 127.0.0.1:1", want[100];
	for (int i = 2; i <= 17; i++)
		sprintf(text + strlen(text), ", 127.0.0.1:%d", i);
	snprintf(want, sizeof(want), "t.ini:4: listen: more than 16 addresses\n");
	expect(text, 0, want);
	text[strlen(text) - strlen(", 127.0.0.1:17")] = '\0';
	td_config_free(parse_ok(text, 0));
}

/* A gateway has a section for each of its instances: their number must not count twice. */
static void test_many_sections(void **state)
{
	enum { MANY = 20000 };
	struct tnl_buf b;
	tnl_buf_init(&b, MANY * 200);
	assert_int_equal(tnl_buf_printf(&b, "[gateway]\nlisten = 127.0.0.1:1\ncertificate = c\nprivate_key = k\n"), 0);
	for (int i = 0; i <= MANY; i++)
		assert_int_equal(
		    tnl_buf_printf(&b, "[instance i-%d]\naccess_key_id = K%d\nsecret_access_key = long-enough\n",
				   i % MANY, i % MANY),
		    0);
	assert_int_equal(tnl_buf_put(&b, "", 1), 0);
	expect((const char *)tnl_buf_data(&b), 0,
	       "warning: t.ini:1: there is no [user NAME] section: nobody can start a session\n"
	       "warning: t.ini:3: certificate: cannot read /base/c: No such file or directory\n"
	       "warning: t.ini:4: private_key: cannot read /base/k: No such file or directory\n"
	       "t.ini:60005: section [instance i-0] is there already, on line 5\n"
	       "t.ini:60006: access_key_id K0 is taken already, on line 6\n");
	tnl_buf_fini(&b);
}

static void test_conflicts(void **s)
{
	expect(
	    TUNNEL
	    "[gateway]\nlisten = 0.0.0.0:1\ncertificate = c\nprivate_key = k\n[alias a]\ntarget = i-2\n"
	    "[user u]\naccess_key_id = K\nsecret_access_key = s-of-tests\ntargets = *\n[instance i-1]\naccess_key_id "
	    "= K\nsecret_access_key = s-of-tests\naccess_key_id_2 = K\nsecret_access_key_2 = s-of-tests\n",
	    0,
	    "t.ini:6: listen: 0.0.0.0:1 is taken already, on line 2\n"
	    "warning: t.ini:7: certificate: cannot read /base/c: No such file or directory\n"
	    "warning: t.ini:8: private_key: cannot read /base/k: No such file or directory\n"
	    "t.ini:9: the name a is taken already, on line 1\n"
	    "t.ini:16: access_key_id K is taken already, on line 12\n"
	    "t.ini:18: access_key_id K is taken already, on line 12\n"
	    "t.ini:18: access_key_id K is taken already, on line 16\n");
}

static void test_certificate_name(void **s)
{
	expect("[gateway]\n" GW "[user u]\naccess_key_id = K\nsecret_access_key = s-of-tests\ntargets = *\n"
	       "certificate_name = u.example\n[instance i-1]\naccess_key_id = L\nsecret_access_key = s-of-tests\n"
	       "certificate_name = i.example\n",
	       0,
	       "warning: t.ini:3: certificate: cannot read /base/c: No such file or directory\n"
	       "warning: t.ini:4: private_key: cannot read /base/k: No such file or directory\n"
	       "t.ini:9: certificate_name requires client_ca in [gateway]\n"
	       "t.ini:13: certificate_name requires client_ca in [gateway]\n");
}

static void test_direct(void **s)
{
	static const char agent[] = "[agent]\ninstance_id = i-1\nregion = eu-west-1\n";
	char text[500];
	snprintf(text, sizeof(text), "%sdirect_listen = 7000x\ndirect_addresses = a, b:0, fd00::1:7\n", agent);
	expect(text, TD_ROLE_AGENT,
	       "t.ini:4: direct_listen = 7000x: is no ADDRESS:PORT\n"
	       "t.ini:5: direct_addresses requires direct_listen\n"
	       "t.ini:5: direct_addresses: a is no HOST:PORT\n"
	       "t.ini:5: direct_addresses: b:0 is no HOST:PORT\n"
	       "t.ini:5: direct_addresses: fd00::1:7 is no HOST:PORT\n");
	snprintf(text, sizeof(text), "%sdirect_listen = [::1]:7000\ndirect_addresses = %s\n", agent,
		 "a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1");
	expect(text, TD_ROLE_AGENT, "t.ini:5: direct_addresses: at most 8\n");
	struct td_config *c =
	    parse_ok(TUNNEL "direct = only\n[tunnel b]\nlisten = 127.0.0.1:3\ntarget = i-1\nport = 2\n", 0);
	assert_int_equal(c->fwd.tunnels[0].direct, TD_DIRECT_ONLY);
	assert_int_equal(c->fwd.tunnels[1].direct, TD_DIRECT_AUTO);
	td_config_free(c);
}

static void test_shell_user(void **s)
{
	expect(
	    "[agent]\ninstance_id = i-1\nregion = eu-west-1\nshell = yes\nshell_user = no-such.user\nmax_streams = x\n",
	    0,
	    "warning: t.ini:5: shell_user: there is no user no-such.user on this machine\n"
	    "t.ini:6: max_streams = x: must be a number\n");
}

/* Quotes would be sent as part of a key or a name: said, but not refused, and without the value. */
static void test_quotes(void **s)
{
	expect("[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\nport = \"2\"\nreason = \"why\"\ndocument = 'x\n"
	       "access_key_id = \"\nsecret_access_key = '5ecret'\n",
	       0,
	       "warning: t.ini:4: port: values are not quoted, these quotes are part of it\n"
	       "t.ini:4: port = \"2\": must be a port from 1 to 65535, or unix:PATH\n"
	       "warning: t.ini:5: reason: values are not quoted, these quotes are part of it\n"
	       "warning: t.ini:8: secret_access_key: values are not quoted, these quotes are part of it\n");
}

static void test_equality(void **s)
{
	static const char *const extra[] = {"reason = x\n",	    "host = h\n",
					    "port = 3\n",	    "session = pool 3\n",
					    "open = start\n",	    "keepalive = no\n",
					    "idle_timeout = 5s\n",  "message_rate = 0\n",
					    "message_rate = 5\n",   "region = x\n",
					    "use_fips = no\n",	    "secret_access_key = b\naccess_key_id = b\n",
					    "stream_hosts = a\n",   "max_payload = 1K\n",
					    "session_memory = 1M\n"};
	static const char base[] = "[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\n";
	char text[1000];
	snprintf(text, sizeof(text), "%sport = 2\n", base);
	struct td_config *a = parse_ok(text, 0);
	/* The same things, said otherwise. */
	snprintf(text, sizeof(text),
		 "# c\n\n%sport: 2 ; x\nidle_timeout = 20m\nsession=shared\n[tunneld]\nmemory_limit = 98304K\n", base);
	struct td_config *b = parse_ok(text, 0);
	assert_true(config_same(a, b) && td_tunnel_same(&a->fwd.tunnels[0], &b->fwd.tunnels[0]));
	td_config_free(b);
	for (size_t i = 0; i < TNL_COUNT(extra); i++) {
		snprintf(text, sizeof(text), "%s%s%s", base, strncmp(extra[i], "port", 4) ? "port = 2\n" : "",
			 extra[i]);
		b = parse_ok(text, 0);
		if (td_tunnel_same(&a->fwd.tunnels[0], &b->fwd.tunnels[0]) || config_same(a, b))
			fail_msg("no difference seen: %s", extra[i]);
		td_config_free(b);
	}
	snprintf(text, sizeof(text), "%sport = 2\n[tunneld]\nlog_level = debug\n", base);
	b = parse_ok(text, 0);
	assert_true(!config_same(a, b) && td_tunnel_same(&a->fwd.tunnels[0], &b->fwd.tunnels[0]));
	td_config_free(b);
	td_config_free(a);
}

static void test_units(void **s)
{
	static const struct {
		const char *text;
		uint64_t v;
	} good[] = {{"0", 0},
		    {"150ms", 150000000},
		    {"10s", 10 * SEC_NS},
		    {"2m", 120 * SEC_NS},
		    {"1h30m", 5400 * SEC_NS},
		    {"1s500ms", 1500000000}};
	static const char *const bad[] = {"",
					  "10",
					  "s",
					  "-1s",
					  "1.5s",
					  "1 s",
					  "10S",
					  "1d",
					  "30m1h",
					  "5s5s",
					  "1ss",
					  "1sm",
					  "99999999999999999999s",
					  "99999999999999999h",
					  "+1s",
					  "0x1s"};
	uint64_t v;
	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		assert_int_equal(td_number_duration(good[i].text, &v), 0);
		assert_true(v == good[i].v);
	}
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (!td_number_duration(bad[i], &v))
			fail_msg("taken: %s", bad[i]);
	static const struct {
		const char *text;
		uint64_t v;
	} sizes[] = {{"0", 0}, {"1024", 1024}, {"64K", 65536}, {"16M", 16777216}, {"1G", 1ull << 30}};
	static const char *const bad_sizes[] = {
	    "", "K", "1k", "1KB", "1 K", "-1", "1.5M", "99999999999999999999", "99999999999999G", "1T"};
	for (size_t i = 0; i < TNL_COUNT(sizes); i++) {
		assert_int_equal(td_number_size(sizes[i].text, &v), 0);
		assert_true(v == sizes[i].v);
	}
	for (size_t i = 0; i < TNL_COUNT(bad_sizes); i++)
		if (!td_number_size(bad_sizes[i], &v))
			fail_msg("taken: %s", bad_sizes[i]);
}

static void test_no_leak(void **s)
{
	long before = tnl_alloc_live();
	char *said = NULL;
	td_config_free(parse_ok(gateway_sample, 0));
	assert_null(parse_said("[gateway]\nlisten = 1.2.3.4:5\nlisten =\n[tunnel a]\nlisten = 1.2.3.4:5, x\nlisten = "
			       "y\nlisten =\ntarget = i\ntarget = j\n[tunnel a]\nport=5\n[aws]\n[aws]\nregion=a\n",
			       TD_ROLE_ANY, &said));
	free(said);
	assert_int_equal(tnl_alloc_live(), before);
}

/* A key of [aws] is inherited by tunnels, aliases and the agent: its type must know how. */
static void test_keys_of_aws_can_be_inherited(void **state)
{
	int n = 0;
	for (const struct td_opt *o = NULL; (o = td_opt_next(TD_SECTION_AWS, o)) != NULL; n++) {
		if (!o->type->inherit || !o->type->same)
			fail_msg("[aws] %s is of a type that is not inherited", o->key);
	}
	assert_true(n > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_samples),
	    cmocka_unit_test(test_every_mistake),
	    cmocka_unit_test(test_many_sections),
	    cmocka_unit_test(test_keys_of_aws_can_be_inherited),
	    cmocka_unit_test(test_near_keys),
	    cmocka_unit_test(test_endpoints),
	    cmocka_unit_test(test_odd_configurations),
	    cmocka_unit_test(test_lines),
	    cmocka_unit_test(test_secrets_not_shown),
	    cmocka_unit_test(test_inherit),
	    cmocka_unit_test(test_rules),
	    cmocka_unit_test(test_many_addresses),
	    cmocka_unit_test(test_conflicts),
	    cmocka_unit_test(test_quotes),
	    cmocka_unit_test(test_shell_user),
	    cmocka_unit_test(test_direct),
	    cmocka_unit_test(test_certificate_name),
	    cmocka_unit_test(test_equality),
	    cmocka_unit_test(test_units),
	    cmocka_unit_test(test_no_leak),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
