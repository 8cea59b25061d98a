/* Two nodes on one loop: data channels that come to n1 of sessions that are at n2 go there over one link; who is no
 * node of theirs gets none. */
#include "tests/daemon/gateway/gw_raw.h"
#include "tunneld/gateway/peer_internal.h"
#include <arpa/inet.h>
#include <sys/socket.h>

static struct {
	struct td_gateway *g; /* n1; T.g is n2 */
	struct td_config *cfg;
	char base[64];
	int peer_port[2];
} B;

static char *ca_pem, *ca_key;
static struct end control;

/* --- setting up ------------------------------------------------------------------------ */
static int free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	close(fd);
	return ntohs(a.sin_port);
}

/* NAME.pem and NAME.key: of that authority, for these names. */
static void write_certificate(const char *name, const char *cn, const char *names, const char *ca,
			      const char *key_of_ca)
{
	char *cert, *key, file[64];
	uint64_t now = T.l->wall_ms / 1000;
	assert_int_equal(tnl_x509_make(cn, names, ca, key_of_ca, now - 3600, now + 86400 * 30, &cert, &key), 0);
	snprintf(file, sizeof(file), "%s.pem", name);
	write_file(file, cert);
	snprintf(file, sizeof(file), "%s.key", name);
	write_file(file, key);
	tnl_free(cert);
	tnl_free(key);
}

static void start_n1(const char *certificate)
{
	char text[2000], why[400] = "";
	struct td_addr a;
	snprintf(
	    text, sizeof(text),
	    "[tunneld]\nlog_level = warn\n[gateway]\nworkers = 1\nlisten = 127.0.0.1:0\ncertificate = %s.pem\nprivate_key = %s.key\n"
	    "store = sqlite:n1.db\nnode = n1\npeer_listen = 127.0.0.1:%d\npeer_ca = ca.pem\n"
	    "[user ops]\naccess_key_id = AKIDOPS\nsecret_access_key = ops-secret\ntargets = i-*\n"
	    "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret\n",
	    certificate, certificate, B.peer_port[0]);
	B.cfg = td_config_parse(text, "n1.ini", T.dir, TD_ROLE_GATEWAY | TD_ROLE_FILES, stderr);
	assert_non_null(B.cfg);
	B.g = td_gateway_new(T.l, B.cfg, why, sizeof(why));
	if (!B.g)
		fail_msg("%s", why);
	assert_int_equal(td_gateway_addr(B.g, 0, &a), 0);
	snprintf(B.base, sizeof(B.base), "https://127.0.0.1:%d", td_addr_port(&a));
}

static void stop_n1(void)
{
	td_gateway_free(B.g);
	td_config_free(B.cfg);
	B.g = NULL;
	B.cfg = NULL;
}

static void begin_nodes(void)
{
	char why[200];
	uint64_t now;
	test_begin("");
	gateway_stop();
	now = T.l->wall_ms / 1000;
	assert_int_equal(tnl_x509_make("CA", NULL, NULL, NULL, now - 3600, now + 86400 * 30, &ca_pem, &ca_key), 0);
	write_file("ca.pem", ca_pem);
	write_certificate("gw", "gw", "127.0.0.1,gw.example,n2", ca_pem, ca_key);
	write_certificate("n1", "n1", "127.0.0.1,gw.example", ca_pem, ca_key);
	write_certificate("nameless", "gw", "127.0.0.1,gw.example", ca_pem, ca_key);
	const struct tnl_tls_config tc = {.ca_pem = ca_pem, .ca_pem_len = strlen(ca_pem), .unix_time = test_time};
	tnl_tls_ctx_free(T.tls);
	T.tls = tnl_tls_ctx_new(&tc, why, sizeof(why));
	assert_non_null(T.tls);
	memset(&B, 0, sizeof(B));
	memset(&control, 0, sizeof(control));
	B.peer_port[0] = free_port();
	B.peer_port[1] = free_port();
	snprintf(T.extra, sizeof(T.extra), "node = n2\npeer_listen = 127.0.0.1:%d\npeer_ca = ca.pem\nidle_timeout = 1h",
		 B.peer_port[1]);
	gateway_start();
}

/* As the store would tell them. */
static void introduce(struct td_gateway *g, const char *name, int port)
{
	char at[64];
	snprintf(at, sizeof(at), "127.0.0.1:%d", port);
	gw_peers_begin(g->peers);
	gw_peers_add(g->peers, "n1", "127.0.0.1:1");
	gw_peers_add(g->peers, name, at);
	gw_peers_end(g->peers);
}

static struct gw_trunk *link_of(struct td_gateway *g, const char *name)
{
	return gw_peers_link(g->peers, name);
}

static int begin(void **state)
{
	begin_nodes();
	introduce(T.g, "n2", B.peer_port[1]);
	start_n1("n1");
	introduce(B.g, "n2", B.peer_port[1]);
	wait_for(link_of(B.g, "n2") && link_of(T.g, "n1"));
	open_control(&control, &I1, "i-1");
	return 0;
}

static int end(void **state)
{
	end_reset(&control);
	if (B.g)
		stop_n1();
	turns_for(0);
	tnl_free(ca_pem);
	tnl_free(ca_key);
	return test_end(state);
}

/* What is dialed from here on comes to n1, or to n2. */
static void come_to(const char *node)
{
	snprintf(T.base, sizeof(T.base), "%s", node[1] == '1' ? B.base : "");
	if (node[1] != '1')
		snprintf(T.base, sizeof(T.base), "https://127.0.0.1:%d", T.port);
}

/* Started at n2; the ends come to these nodes. */
static void meet(struct ses *s, const char *client_at, const char *agent_at)
{
	char path[200], token[64];
	session_start(s, "i-1");
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s->id);
	assert_int_equal(post_channel(&I1, path, create_body, token), 201);
	come_to(client_at);
	open_client(&s->client, s->id, s->token, "client-1");
	come_to(agent_at);
	open_agent_token(&s->agent, &I1, s->id, token, "");
	come_to("n2");
	wait_for(s->client.n == 1 && s->agent.n == 1);
	s->client.n = s->agent.n = 0;
}

/* So many messages of 30 KiB from one end, as the link takes them; their digest is as it should be at the other. */
static void transfer(struct end *from, struct end *to, enum tnl_mtype t, int count)
{
	static uint8_t block[30 * 1024];
	SHA256_CTX sum = to->sum;
	uint64_t want = to->bytes + (uint64_t)count * sizeof(block);
	uint8_t a[32], b[32];
	for (int i = 0; i < count; i++) {
		for (size_t k = 0; k < sizeof(block); k++)
			block[k] = (uint8_t)(k * 31 + (size_t)i * 7 + k / 253);
		SHA256_Update(&sum, block, sizeof(block));
		wait_for(td_wslink_room(from->w) > sizeof(block) + TNL_MSG_HDR);
		assert_int_equal(send_msg(from, t, 1, i, block, sizeof(block)), 0);
	}
	wait_for(to->bytes == want);
	SHA256_Final(a, &sum);
	sum = to->sum;
	SHA256_Final(b, &sum);
	assert_memory_equal(a, b, 32);
}

/* --- tests ---------------------------------------------------------------------------------- */
static void test_both_elsewhere(void **state)
{
	struct ses s, two;
	meet(&s, "n1", "n1");
	assert_int_equal(B.g->peers->handed_on, 2);
	assert_int_equal(T.g->peers->taken_in, 2);
	assert_int_equal(tnl_trunk_streams(link_of(B.g, "n2")->t), 2);
	transfer(&s.client, &s.agent, TNL_MT_INPUT, 150);
	transfer(&s.agent, &s.client, TNL_MT_OUTPUT, 150);
	assert_int_equal(status_of("sessions/0/client/attached"), 1);
	meet(&two, "n1", "n2");
	transfer(&two.client, &two.agent, TNL_MT_INPUT, 20);
	assert_int_equal(B.g->peers->n, 1); /* one link for all */
	session_done(&s);
	session_done(&two);
	wait_for(tnl_trunk_streams(link_of(B.g, "n2")->t) == 0 && tnl_trunk_streams(link_of(T.g, "n1")->t) == 0);
	wait_for(tnl_list_empty(&T.g->peers->ferries) && tnl_list_empty(&B.g->peers->ferries));
}

/* One that does not read holds up no other, and the nodes keep no more of it than windows and queues. */
static void test_slow_reader(void **state)
{
	struct ses slow, quick;
	static uint8_t block[30 * 1024];
	int sent = 0, still = 0;
	uint64_t used = td_memory_used();
	meet(&slow, "n1", "n2");
	meet(&quick, "n1", "n2");
	td_wslink_pause(slow.client.w, true);
	while (still < 30 && sent < 2000) {
		if (td_wslink_room(slow.agent.w) > sizeof(block) + TNL_MSG_HDR) {
			assert_int_equal(send_msg(&slow.agent, TNL_MT_OUTPUT, 1, sent++, block, sizeof(block)), 0);
			still = 0;
		} else {
			turns_for(10 * TD_MS);
			still++;
		}
	}
	assert_true(sent < 2000); /* what relay_memory and the kernel's sockets hold */
	assert_true(td_memory_used() - used < 10u << 20);
	transfer(&quick.agent, &quick.client, TNL_MT_OUTPUT, 100);
	td_wslink_pause(slow.client.w, false);
	wait_for(slow.client.bytes == (uint64_t)sent * sizeof(block));
	session_done(&slow);
	session_done(&quick);
}

/* What clients do not read of other nodes' sessions gives way when the node that they came to is short of memory. */
static void test_unread_makes_way(void **state)
{
	struct ses slow;
	static uint8_t block[30 * 1024];
	meet(&slow, "n1", "n2");
	td_wslink_pause(slow.client.w, true);
	for (int i = 0; i < 60; i++) { /* more than the kernel's sockets and a ferry hold, less than relay_memory */
		wait_for(td_wslink_room(slow.agent.w) > sizeof(block) + TNL_MSG_HDR);
		assert_int_equal(send_msg(&slow.agent, TNL_MT_OUTPUT, 1, i, block, sizeof(block)), 0);
	}
	long waits = -1; /* at n2, until n1 has what it may have */
	for (long now; (now = status_of("sessions/0/client/waiting_bytes")) != waits || !now; waits = now)
		turns_for(50 * TD_MS);
	td_memory_limit(td_memory_used());
	gw_room_make(B.g);
	assert_int_equal(tnl_trunk_streams(link_of(B.g, "n2")->t), 1); /* it may read yet */
	B.g->l->now += 6 * TD_SEC;
	gw_room_make(B.g);
	assert_int_equal(tnl_trunk_streams(link_of(B.g, "n2")->t), 0);
	td_memory_limit(96u << 20);
	td_wslink_pause(slow.client.w, false);
	wait_for(slow.client.closed);
	session_done(&slow);
}

/* The close frame and its code reach the client; a node that goes takes the links with it, and they come again. */
static void test_ends(void **state)
{
	struct ses s;
	char body[200];
	meet(&s, "n1", "n1");
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s.id);
	assert_int_equal(ssm(&OPS, "TerminateSession", body), 200);
	wait_for(s.client.closed && s.agent.closed);
	assert_int_equal(s.client.code, 1000);
	assert_int_equal(s.client.f[0].type, TNL_MT_CHANNEL_CLOSED);
	session_done(&s);
	meet(&s, "n1", "n1");
	stop_n1();
	wait_for(s.client.closed && s.agent.closed && !link_of(T.g, "n1"));
	start_n1("n1");
	introduce(B.g, "n2", B.peer_port[1]);
	wait_for(link_of(B.g, "n2") && link_of(T.g, "n1"));
	session_resume(&s);
	come_to("n1");
	open_client(&s.client, s.id, s.token, "client-1");
	come_to("n2");
	wait_for(status_of("sessions/0/client/attached") == 1);
	session_done(&s);
}

static void on_drained(void *ctx)
{
	*(bool *)ctx = true;
}

/* A node that goes has the links that it handed on closed as its own: with a code, and within what its drain takes; so
 * does one whose sessions they are. */
static void test_drain(void **state)
{
	struct ses s, two;
	bool drained = false;
	uint64_t began;
	meet(&s, "n1", "n1");
	meet(&two, "n2", "n1");
	began = T.l->now;
	td_gateway_drain(B.g, 20 * TD_SEC, on_drained, &drained);
	wait_for(s.client.closed && s.agent.closed && two.agent.closed);
	assert_int_equal(s.client.code, 1001);
	assert_int_equal(s.agent.code, 1001);
	assert_int_equal(two.agent.code, 1001);
	wait_for(drained && tnl_list_empty(&T.g->peers->ferries));
	assert_true(T.l->now - began < 8 * TD_SEC); /* an answer to the close frame that is lost takes 2 s, a cut 20 */
	assert_false(two.client.closed);
	stop_n1();
	session_done(&s);
	session_done(&two);
	start_n1("n1");
	introduce(B.g, "n2", B.peer_port[1]);
	wait_for(link_of(B.g, "n2") && link_of(T.g, "n1"));
	meet(&s, "n1", "n2");
	drained = false;
	td_gateway_drain(T.g, 20 * TD_SEC, on_drained, &drained);
	wait_for(s.client.closed && s.agent.closed && drained);
	assert_int_equal(s.client.code, 1001);
	assert_int_equal(s.agent.code, 1001);
	session_done(&s);
}

/* What came by a link is decided where it came to, whatever its id says. */
static void test_one_hop(void **state)
{
	struct end e;
	const char *const ids[] = {"ops-n2-0123456789abcdef0", "ops-n1-0123456789abcdef0", "ops-n3-0123456789abcdef0"};
	memset(&e, 0, sizeof(e));
	for (unsigned i = 0; i < TNL_COUNT(ids); i++) {
		come_to("n1");
		open_client(&e, ids[i], "x", "client-1");
		wait_for(e.closed);
		assert_int_equal(e.code, 1008);
		come_to("n2");
		open_client(&e, ids[i], "x", "client-1");
		wait_for(e.closed);
		assert_int_equal(e.code, 1008);
	}
	assert_int_equal(B.g->peers->handed_on, 1);
	assert_int_equal(T.g->peers->handed_on, 1);
	end_reset(&e);
}

/* --- what a signature is for -------------------------------------------------------------------- */
static void dial_n1(struct raw *r)
{
	struct td_addr a;
	assert_int_equal(td_gateway_addr(B.g, 0, &a), 0);
	const struct td_conn_opts o = {.host = "127.0.0.1", .port = td_addr_port(&a), .tls = T.tls};
	memset(r, 0, sizeof(*r));
	r->c = td_conn_dial(T.l, &o, &raw_cb, r);
	wait_for(r->ready);
}

/* A request that is signed for that host; `more`: further lines of its head. */
static void ask(struct raw *r, const char *method, const char *host, const char *path, const char *secret,
		const char *service, const char *more)
{
	const struct tnl_sigv4_keys k = {"AKIDOPS", secret, NULL};
	struct tnl_buf b;
	char url[300];
	const char *fault;
	struct tnl_url u;
	struct td_http_signature sig = {0};
	snprintf(url, sizeof(url), "https://%s%s", host, path);
	assert_int_equal(tnl_url_parse(url, &u, &fault), 0);
	assert_int_equal(td_http_sign(&sig, method, &u, NULL, 0, NULL, 0, &k, "eu-west-1", service,
				      T.l->wall_ms / 1000),
			 0);
	tnl_buf_init(&b, 4096);
	tnl_buf_printf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nX-Amz-Date: %s\r\nAuthorization: %s\r\n%s\r\n", method, path,
		       host, sig.date, tnl_buf_str(&sig.authorization), more);
	raw_send(r, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	td_http_signature_fini(&sig);
}

#define AT_N2 "/v1/data-channel/ops-n2-0123456789abcdef0"
#define UPGRADE                                                                                                        \
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: QC6h4bVPtNXSWPHeGScLvA==\r\n"                 \
	"Sec-WebSocket-Version: 13\r\n"
#define OTHER_HOST "ssm.eu-west-1.amazonaws.com"

/* The other node takes our word that the signature was for us: one that was not is refused where it came to. */
static void test_signed_for_another(void **state)
{
	struct raw r;
	dial_n1(&r);
	ask(&r, "GET", OTHER_HOST, AT_N2, "ops-secret", "ssmmessages", UPGRADE);
	wait_for(r.parsed);
	assert_memory_equal(r.in, "HTTP/1.1 403", 12);
	assert_non_null(memmem(r.in, r.n, "InvalidSignatureException", 25));
	raw_free(&r);
	assert_int_equal(B.g->peers->handed_on, 0);
	dial_n1(&r);
	ask(&r, "GET", "gw.example", AT_N2, "ops-secret", "ssmmessages", UPGRADE);
	wait_for(r.parsed);
	assert_memory_equal(r.in, "HTTP/1.1 101", 12);
	raw_free(&r);
	assert_int_equal(B.g->peers->handed_on, 1);
}

/* That word is for the one request which was looked at: none of the same connection comes behind it. */
static void test_one_request(void **state)
{
	struct raw r;
	dial_n1(&r);
	ask(&r, "GET", "gw.example", AT_N2, "wrong", "ssmmessages", UPGRADE);
	ask(&r, "GET", OTHER_HOST, "/v1/data-channel/x", "ops-secret", "ssmmessages", UPGRADE);
	wait_for(r.closed);
	assert_int_equal(B.g->peers->handed_on, 1);
	assert_memory_equal(r.in, "HTTP/1.1 403", 12);
	assert_non_null(memmem(r.in, r.n, "Connection: close", 17));
	assert_null(memmem(r.in + 12, r.n - 12, "HTTP/1.1 ", 9));
	raw_free(&r);
}

static int begin_apart(void **state)
{
	begin_nodes();
	return 0;
}

/* A certificate without the node's name, one of another authority, and none at all. */
static void test_wrong_certificate(void **state)
{
	char *other, *other_key;
	uint64_t now = T.l->wall_ms / 1000;
	introduce(T.g, "n2", B.peer_port[1]);
	start_n1("nameless");
	introduce(B.g, "n2", B.peer_port[1]);
	turns_for(600 * TD_MS);
	assert_null(link_of(B.g, "n2"));
	assert_null(link_of(T.g, "n1"));
	stop_n1();
	assert_int_equal(tnl_x509_make("CA", NULL, NULL, NULL, now - 3600, now + 86400 * 30, &other, &other_key), 0);
	write_certificate("stranger", "n1", "127.0.0.1,gw.example", other, other_key);
	tnl_free(other);
	tnl_free(other_key);
	start_n1("stranger");
	introduce(B.g, "n2", B.peer_port[1]);
	turns_for(600 * TD_MS);
	assert_null(link_of(B.g, "n2"));
	assert_null(link_of(T.g, "n1"));
	stop_n1();
	start_n1("n1");
	introduce(B.g, "n2", B.peer_port[1]);
	wait_for(link_of(B.g, "n2") && link_of(T.g, "n1"));
}

/* Whoever has a certificate of that authority is not a node by that: the store must know the name. */
static void test_unknown_node(void **state)
{
	struct end e;
	memset(&e, 0, sizeof(e));
	start_n1("n1");
	introduce(B.g, "n2", B.peer_port[1]);
	wait_for(link_of(B.g, "n2"));
	come_to("n1");
	dial(&e, NULL, AT_N2);
	assert_true(e.closed);
	assert_int_equal(B.g->peers->handed_on, 1);
	assert_int_equal(T.g->peers->taken_in, 0);
	assert_null(link_of(T.g, "n1"));
	gw_peers_begin(T.g->peers);
	gw_peers_add(T.g->peers, "n1", "fd:peers"); /* nobody can dial it there, but it does */
	gw_peers_end(T.g->peers);
	assert_non_null(link_of(T.g, "n1"));
	dial(&e, NULL, AT_N2);
	assert_true(e.open);
	assert_int_equal(T.g->peers->taken_in, 1);
	end_reset(&e);
}

#define T2(fn, b) cmocka_unit_test_setup_teardown(fn, b, end)
int main(void)
{
	(void)raw_frame; /* of gw_raw.h, not needed here */
	(void)raw_upgrade;
	const struct CMUnitTest tests[] = {
	    T2(test_both_elsewhere, begin),
	    T2(test_slow_reader, begin),
	    T2(test_unread_makes_way, begin),
	    T2(test_ends, begin),
	    T2(test_drain, begin),
	    T2(test_one_hop, begin),
	    T2(test_signed_for_another, begin),
	    T2(test_one_request, begin),
	    T2(test_wrong_certificate, begin_apart),
	    T2(test_unknown_node, begin_apart),
	};
	return cmocka_run_group_tests_name("links between nodes", tests, NULL, NULL);
}
