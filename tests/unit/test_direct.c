/* The direct link's words, its TLS, and what binds the two ends to one ticket and one connection. */
#include "tests/unit/tls_util.h"
#include "lib/direct.h"
#include "lib/handshake.h"

static struct tnl_direct_ticket some_ticket(void)
{
	struct tnl_direct_ticket t = {.naddresses = 2, .addresses = {"db.internal:7000", "[fd00::7]:7000"}};

	tnl_random(t.key, sizeof(t.key));
	tnl_random(t.secret, sizeof(t.secret));
	return t;
}

static struct tnl_direct there_and_back(const struct tnl_direct *d)
{
	struct tnl_direct out;
	struct tnl_buf b;

	tnl_buf_init(&b, TNL_DIRECT_JSON);
	assert_int_equal(tnl_direct_write(&b, d), 0);
	assert_int_equal(tnl_direct_parse(tnl_buf_data(&b), tnl_buf_len(&b), &out), 0);
	tnl_buf_fini(&b);
	assert_int_equal(out.kind, d->kind);
	return out;
}

static void words(void **state)
{
	struct tnl_direct policy = {.kind = TNL_DIRECT_POLICY, .allow = true, .grace_ms = 60000};
	struct tnl_direct report = {.kind = TNL_DIRECT_REPORT, .up = true, .sent = 1ull << 50, .received = 7};
	struct tnl_direct want = {.kind = TNL_DIRECT_WANT};
	struct tnl_direct ticket = {.kind = TNL_DIRECT_TICKET, .ticket = some_ticket()};
	struct tnl_direct got = there_and_back(&policy);

	assert_true(got.allow);
	assert_int_equal(got.grace_ms, 60000);
	got = there_and_back(&report);
	assert_true(got.up);
	assert_true(got.sent == report.sent && got.received == 7);
	there_and_back(&want);
	got = there_and_back(&ticket);
	assert_int_equal(got.ticket.naddresses, 2);
	assert_string_equal(got.ticket.addresses[1], "[fd00::7]:7000");
	assert_memory_equal(got.ticket.key, ticket.ticket.key, 32);
	assert_memory_equal(got.ticket.secret, ticket.ticket.secret, 32);
}

#define HEX64 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define B64_32 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void bad_words(void **state)
{
	static const char *const bad[] = {
	    "",
	    "[]",
	    "{}",
	    "{\"Do\":\"dance\"}",
	    "{\"Do\":\"policy\",\"Allow\":true}",
	    "{\"Do\":\"policy\",\"Allow\":true,\"GraceMs\":-1}",
	    "{\"Do\":\"policy\",\"Allow\":true,\"GraceMs\":86400001}",
	    "{\"Do\":\"report\",\"Up\":true,\"Sent\":1}",
	    "{\"Do\":\"report\",\"Up\":true,\"Sent\":1,\"Received\":1e300}",
	    "{\"Do\":\"ticket\",\"Addresses\":[],\"Key\":\"" HEX64 "\",\"Secret\":\"" B64_32 "\"}",
	    "{\"Do\":\"ticket\",\"Addresses\":[\"a b:1\"],\"Key\":\"" HEX64 "\",\"Secret\":\"" B64_32 "\"}",
	    "{\"Do\":\"ticket\",\"Addresses\":[7],\"Key\":\"" HEX64 "\",\"Secret\":\"" B64_32 "\"}",
	    "{\"Do\":\"ticket\",\"Addresses\":[\"a:1\"],\"Key\":\"" HEX64 "00\",\"Secret\":\"" B64_32 "\"}",
	    "{\"Do\":\"ticket\",\"Addresses\":[\"a:1\"],\"Key\":\"" HEX64 "\",\"Secret\":\"AAAA\"}",
	    "{\"Do\":\"ticket\",\"Addresses\":[\"1:1\",\"2:1\",\"3:1\",\"4:1\",\"5:1\",\"6:1\",\"7:1\",\"8:1\",\"9:1\"],"
	    "\"Key\":\"" HEX64 "\",\"Secret\":\"" B64_32 "\"}",
	};
	char large[TNL_DIRECT_JSON + 100];
	struct tnl_direct d;

	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (tnl_direct_parse(bad[i], strlen(bad[i]), &d) == 0)
			fail_msg("taken: %s", bad[i]);
	memset(large, ' ', sizeof(large));
	memcpy(large, "{\"Do\":\"want\"}", 13);
	assert_int_equal(tnl_direct_parse(large, TNL_DIRECT_JSON, &d), 0);
	assert_int_equal(tnl_direct_parse(large, TNL_DIRECT_JSON + 1, &d), TNL_ESYNTAX);
}

static void addresses(void **state)
{
	static const struct {
		const char *text, *host;
		uint16_t port;
	} good[] = {{"db:7000", "db", 7000}, {"[fd00::7]:1", "fd00::7", 1}, {"10.0.0.7:65535", "10.0.0.7", 65535}};
	static const char *const bad[] = {"",	      "db",    "db:",	    ":7",   "db:0",
					  "db:65536", "db:7x", "fd00::7:1", "[]:7", "db: 7"};
	char host[TNL_DIRECT_ADDRESS];
	uint16_t port;
	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		assert_true(tnl_direct_address_split(good[i].text, host, &port));
		assert_string_equal(host, good[i].host);
		assert_int_equal(port, good[i].port);
	}
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (tnl_direct_address_split(bad[i], host, &port))
			fail_msg("taken: %s", bad[i]);
}

/* What two ends make of what they offer: the client's wish, where the agent has a port. */
static void agreed(void **state)
{
	static const struct {
		enum tnl_direct_use agent, client, both;
	} cases[] = {
	    {TNL_DIRECT_NO, TNL_DIRECT_ONLY, TNL_DIRECT_NO},
	    {TNL_DIRECT_ONLY, TNL_DIRECT_NO, TNL_DIRECT_NO},
	    {TNL_DIRECT_ONLY, TNL_DIRECT_AUTO, TNL_DIRECT_AUTO},
	    {TNL_DIRECT_ONLY, TNL_DIRECT_ONLY, TNL_DIRECT_ONLY},
	};
	char version[] = "3.3.987.0", type[] = "Port";

	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct tnl_caps caps = {.present = true, .version = 1, .smux = 2, .max_payload = 4096};
		struct tnl_caps agent = caps, client = caps;
		struct tnl_hs_request r = {.agent_version = version, .session_type = type}, got;
		struct tnl_buf b;

		agent.direct = cases[i].agent;
		client.direct = cases[i].client;
		r.caps = agent;
		tnl_buf_init(&b, TNL_HS_MAX_JSON);
		assert_int_equal(tnl_hs_request_write(&b, &r), 0);
		assert_int_equal(tnl_hs_request_parse(tnl_buf_data(&b), tnl_buf_len(&b), &got, NULL), 0);
		assert_int_equal(got.caps.direct, agent.direct);
		assert_int_equal(tnl_caps_meet(&client, &got.caps).direct, cases[i].both);
		tnl_hs_request_fini(&got);
		tnl_buf_fini(&b);
	}
}

/* --- TLS -------------------------------------------------------------------------- */

struct door {
	char name[TNL_DIRECT_NAME + 1];
	int asked;
};

static bool admit(void *ctx, const char *name)
{
	struct door *d = ctx;

	d->asked++;
	return strcmp(name, d->name) == 0;
}

static struct tnl_tls_ctx *server_of(struct door *d)
{
	char err[200];
	struct tnl_tls_config c = {.server = true,
				   .cert_pem = cert,
				   .cert_pem_len = strlen(cert),
				   .key_pem = key,
				   .key_pem_len = strlen(key),
				   .admit = admit,
				   .admit_ctx = d,
				   .unix_time = clock_cb};
	struct tnl_tls_ctx *x = tnl_tls_ctx_new(&c, err, sizeof(err));

	assert_non_null(x);
	return x;
}

static struct tnl_tls_ctx *client_for(const uint8_t pin[32])
{
	char err[200];
	struct tnl_tls_config c = {.pin = pin, .unix_time = clock_cb};
	struct tnl_tls_ctx *x = tnl_tls_ctx_new(&c, err, sizeof(err));

	assert_non_null(x);
	return x;
}

static void bound(void **state)
{
	struct door d = {.asked = 0};
	uint8_t secret[TNL_DIRECT_SECRET] = {1, 2, 3}, pin[32], ce[32], se[32], cp[32], sp[32];
	struct pair p, other;

	tnl_direct_name(secret, d.name);
	assert_int_equal(strlen(d.name), TNL_DIRECT_NAME);
	assert_int_equal(tnl_x509_key_hash(cert, pin), 0);
	struct tnl_tls_ctx *s = server_of(&d), *c = client_for(pin);

	pair_open(&p, c, s, d.name, 1);
	assert_int_equal(p.crc, 0);
	assert_int_equal(p.src, 0);
	assert_string_equal(tnl_tls_version(p.c), "TLSv1.3");
	assert_string_equal(tnl_tls_asked_name(p.s), d.name);
	assert_int_equal(tnl_tls_export(p.c, TNL_DIRECT_LABEL, ce, 32), 0);
	assert_int_equal(tnl_tls_export(p.s, TNL_DIRECT_LABEL, se, 32), 0);
	assert_memory_equal(ce, se, 32);
	tnl_direct_proof(secret, ce, true, cp);
	tnl_direct_proof(secret, se, true, sp);
	assert_memory_equal(cp, sp, 32);
	tnl_direct_proof(secret, se, false, sp);
	assert_memory_not_equal(cp, sp, 32); /* the one's cannot be sent back as the other's */

	pair_open(&other, c, s, d.name, 0);
	assert_false(tnl_tls_resumed(other.c));
	assert_int_equal(tnl_tls_export(other.c, TNL_DIRECT_LABEL, ce, 32), 0);
	assert_memory_not_equal(ce, se, 32);
	assert_int_equal(d.asked, 2);
	pair_close(&p);
	pair_close(&other);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

/* Whoever does not know the name gets one alert: no certificate, no ServerHello. */
static void nothing_is_shown(void **state)
{
	struct door d = {.asked = 0};
	uint8_t secret[TNL_DIRECT_SECRET] = {9}, pin[32];
	const char *const names[] = {"0000000000000000000000000000000000000000", "example.com", "127.0.0.1"};

	tnl_direct_name(secret, d.name);
	assert_int_equal(tnl_x509_key_hash(cert, pin), 0);
	struct tnl_tls_ctx *s = server_of(&d), *c = client_for(pin),
			   *plain = make_ctx(false, NULL, NULL, ca_cert, false);

	for (size_t i = 0; i < TNL_COUNT(names); i++) {
		struct tnl_tls *st = tnl_tls_new(s, NULL), *ct = tnl_tls_new(i == 2 ? plain : c, names[i]);
		size_t n;

		assert_int_equal(tnl_tls_handshake(ct), TNL_EAGAIN);
		move(ct, st, 0);
		assert_int_equal(tnl_tls_handshake(st), TNL_ETLS);
		const uint8_t *out = tnl_tls_out_peek(st, &n);
		assert_int_equal(n, 7); /* a record of one alert */
		assert_int_equal(out[0], 21);
		assert_int_equal(out[5], 2);
		tnl_tls_free(st);
		tnl_tls_free(ct);
	}
	assert_int_equal(d.asked, 2); /* an address is no name: not even asked */
	tnl_tls_ctx_free(plain);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

/* Only the key of the ticket is taken, also not one that a trusted authority has signed. */
static void another_key(void **state)
{
	struct door d = {.asked = 0};
	uint8_t secret[TNL_DIRECT_SECRET] = {9}, pin[32];
	struct pair p;

	tnl_direct_name(secret, d.name);
	assert_int_equal(tnl_x509_key_hash(ca_cert, pin), 0);
	struct tnl_tls_ctx *s = server_of(&d), *c = client_for(pin);

	pair_open(&p, c, s, d.name, 0);
	assert_int_equal(p.crc, TNL_ECERT);
	assert_non_null(strstr(tnl_tls_why(p.c), "key that was agreed"));
	assert_int_not_equal(p.src, 0);
	pair_close(&p);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
	assert_int_equal(tnl_x509_key_hash("no certificate", pin), TNL_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(words),	   cmocka_unit_test(bad_words),
	    cmocka_unit_test(bound),	   cmocka_unit_test(nothing_is_shown),
	    cmocka_unit_test(another_key), cmocka_unit_test(addresses),
	    cmocka_unit_test(agreed),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
