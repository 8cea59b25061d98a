#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/enc.h"
#include "lib/handshake.h"
#include "lib/message.h"
#include "lib/wire.h"

static const char *const traces[] = {"port", "ssh", "shell", "kms-shell"};
static struct tnl_buf out;

static void same(const char *want, size_t n)
{
	assert_int_equal(tnl_buf_len(&out), n);
	assert_memory_equal(tnl_buf_data(&out), want, n);
	tnl_buf_reset(&out);
}

/* Frames and bodies that stock ends wrote: read, and written again to the same bytes. */
static void check_payload(const struct tnl_msg *m)
{
	struct tnl_task t;
	struct tnl_start s;
	struct tnl_channel_closed c;
	const char *fault;

	if (m->type == TNL_MT_TASK_COMPLETE) {
		assert_int_equal(tnl_task_parse(m->payload, m->plen, &t), 0);
		assert_int_equal(tnl_task_complete_write(&out, t.task_id, t.instance_id, t.final_status, t.output, 1),
				 0);
		same((const char *)m->payload, m->plen);
		tnl_task_fini(&t);
	} else if (m->type == TNL_MT_TASK_ACK) {
		assert_int_equal(tnl_task_parse(m->payload, m->plen, &t), 0);
		assert_int_equal(strlen(t.message_id), 36);
		assert_string_equal(t.topic, "agent_task_complete");
		tnl_task_fini(&t);
	} else if (m->type == TNL_MT_SESSION_STATE) {
		struct tnl_json *j = tnl_json_parse(m->payload, m->plen);
		assert_int_equal(tnl_state_write(&out, tnl_json_get_str(j, "SessionState"),
						 tnl_json_get_str(j, "SessionId")),
				 0);
		same((const char *)m->payload, m->plen);
		tnl_json_free(j);
	} else if (m->type == TNL_MT_INTERACTIVE_SHELL) {
		assert_int_equal(tnl_start_parse(m->payload, m->plen, &s, &fault), 0);
		assert_memory_equal(s.session_id, "lab-user-", 9);
		tnl_start_fini(&s);
	} else if (m->type == TNL_MT_CHANNEL_CLOSED) {
		assert_int_equal(tnl_channel_closed_parse(m->payload, m->plen, &c), 0);
		assert_string_equal(c.output, "");
		assert_true(c.created_ms > 1795338000000u);
		tnl_channel_closed_fini(&c);
	}
}

static struct tnl_hs_request asked;
static int handshakes;

/* What our writers make of what was read is what the stock ends had written. */
static void check_handshake(const struct tnl_msg *m)
{
	struct tnl_hs_response a;
	const char *fault, *p = (const char *)m->payload;
	uint8_t sealed[128];
	char *text;

	if (m->ptype == TNL_PT_HANDSHAKE_REQUEST) {
		tnl_hs_request_fini(&asked);
		assert_int_equal(tnl_hs_request_parse(p, m->plen, &asked, &fault), 0);
		assert_int_equal(tnl_hs_request_write(&out, &asked), 0);
	} else if (m->ptype == TNL_PT_HANDSHAKE_RESPONSE) {
		assert_int_equal(tnl_hs_response_parse(p, m->plen, &a, &fault), 0);
		assert_int_equal(tnl_hs_response_write(&out, &asked, &a), 0);
		tnl_hs_response_fini(&a);
	} else if (m->ptype == TNL_PT_HANDSHAKE_COMPLETE) {
		assert_int_equal(tnl_hs_complete_parse(p, m->plen, &text), 0);
		tnl_hs_complete_write(&out, strtoull(p + strlen("{\"HandshakeTimeToComplete\":"), NULL, 10), text);
		tnl_free(text);
	} else {
		int n = tnl_hs_challenge_parse(p, m->plen, sealed, sizeof(sealed));
		assert_int_equal(n, 64 + 28);
		tnl_hs_challenge_write(&out, sealed, (size_t)n);
	}
	handshakes++;
	/* A stock client leaves ChallengeAcknowledgement out of its KMS answer, ours never does. */
	if (m->ptype == TNL_PT_HANDSHAKE_RESPONSE && asked.kms)
		tnl_buf_reset(&out);
	else
		same(p, m->plen);
}

static void check_line(const char *text, int *checked)
{
	struct tnl_open o;
	const char *fault, *hex = strstr(text, " : ");
	size_t n = strlen(text);
	char *token;

	++*checked;
	if (text[0] == 'F' && hex) {
		static uint8_t frame[32 * 1024];
		struct tnl_msg m;
		size_t len = strlen(hex + 3) / 2;
		assert_int_equal(tnl_unhex(hex + 3, len * 2, frame), 0);
		assert_int_equal(tnl_msg_decode(frame, len, &m, NULL), 0);
		check_payload(&m);
		if (m.ptype >= TNL_PT_HANDSHAKE_REQUEST && m.ptype <= TNL_PT_ENC_CHALLENGE_RESPONSE)
			check_handshake(&m);
	} else if (text[0] == 'T') {
		const char *json = strchr(text, '{');
		assert_int_equal(tnl_open_parse(json, strlen(json), &o, &fault), 0);
		assert_int_equal(tnl_open_write(&out, &o), 0);
		same(json, strlen(json));
		tnl_open_fini(&o);
	} else if (text[0] == 'P') {
		struct tnl_json *j = tnl_json_parse(text + 2, n - 2);
		tnl_create_write(&out, tnl_json_get_str(j, "RequestId"), tnl_json_get_str(j, "ClientId"), 0);
		same(text + 2, n - 2);
		tnl_json_free(j);
	} else if (text[0] == 'X') {
		assert_int_equal(tnl_create_reply_parse(text + 2, n - 2, &token), 0);
		assert_int_equal(strlen(token), 64);
		tnl_create_reply_write(&out, "CreateDataChannelOutput", token);
		same(text + 2, n - 2);
		tnl_free(token);
	} else {
		--*checked;
	}
}

static void captured_payloads(void **state)
{
	static char text[64 * 1024];
	int checked = 0;

	for (size_t i = 0; i < TNL_COUNT(traces); i++) {
		char path[128];
		snprintf(path, sizeof(path), "tests/vectors/frames/%s.txt", traces[i]);
		FILE *f = fopen(path, "r");
		assert_non_null(f);
		while (fgets(text, sizeof(text), f)) {
			text[strcspn(text, "\n")] = '\0';
			check_line(text, &checked);
		}
		fclose(f);
	}
	tnl_hs_request_fini(&asked);
	assert_int_equal(checked, 129 + 16);
	assert_int_equal(handshakes, 3 * 3 + 2);
}

static int open_rc(const char *s, const char **fault)
{
	struct tnl_open o;
	int rc = tnl_open_parse(s, strlen(s), &o, fault);
	tnl_open_fini(&o);
	return rc;
}

static void first_frames(void **state)
{
	static const char *const bad[][2] = {
	    {"", "JSON"},
	    {"[]", "JSON"},
	    {"{\"TokenValue\":\"t\"}", "MessageSchemaVersion"},
	    {"{\"MessageSchemaVersion\":\"2.0\",\"TokenValue\":\"t\"}", "MessageSchemaVersion"},
	    {"{\"MessageSchemaVersion\":\"1.0\"}", "TokenValue"},
	    {"{\"MessageSchemaVersion\":\"1.0\",\"TokenValue\":\"\"}", "TokenValue"},
	    {"{\"MessageSchemaVersion\":\"1.0\",\"TokenValue\":5}", "TokenValue"},
	    {"{\"MessageSchemaVersion\":\"1.0\",\"TokenValue\":\"t\",\"ClientId\":[]}", "ClientId"},
	};
	const char *fault;

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		assert_int_equal(open_rc(bad[i][0], &fault), TNL_ESYNTAX);
		assert_string_equal(fault, bad[i][1]);
	}
	/* A control channel of a stock agent: Cookie is null. */
	assert_int_equal(
	    open_rc("{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"r\",\"TokenValue\":\"t\","
		    "\"AgentVersion\":\"3.3.0.0\",\"PlatformType\":\"linux\",\"Cookie\":null,\"ClientId\":null}",
		    &fault),
	    0);
	struct tnl_open ours = {.request_id = (char *)"r",
				.token = (char *)"t",
				.agent_version = (char *)"3.3.9.9",
				.platform_type = (char *)"linux"};
	assert_int_equal(tnl_open_write(&out, &ours), 0);
	static const char want[] = "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"r\",\"TokenValue\":\"t\","
				   "\"AgentVersion\":\"3.3.9.9\",\"PlatformType\":\"linux\"}";
	same(want, sizeof(want) - 1);
}

static void creation_answers(void **state)
{
	static const char *const good[] = {
	    "<a><TokenValue>t&lt;&amp;&#65;&#x42;</TokenValue></a>",
	    "<?xml version=\"1.0\"?>\n<!-- c --><r xmlns='u' a=\"b\">\n <MessageSchemaVersion>1.0</MessageSchemaVersion>"
	    "<TokenValue >t<![CDATA[<&]]>AB</TokenValue >\n<x><TokenValue>inner</TokenValue></x><y/></r>\n",
	};
	static const char *const bad[] = {
	    "",
	    "x",
	    "<a/>",
	    "<a></a>",
	    "<TokenValue>t</TokenValue>",
	    "<a><TokenValue></TokenValue></a>",
	    "<a><TokenValue/></a>",
	    "<a><TokenValue>t</a></TokenValue>",
	    "<a><TokenValue>t</TokenValue></b>",
	    "<a><TokenValue>t</TokenValue>",
	    "<a><TokenValue>t</TokenValue></a>x",
	    "<a><TokenValue>t</TokenValue></a><b/>",
	    "<a><TokenValue>1</TokenValue><TokenValue>2</TokenValue></a>",
	    "<a><TokenValue>&x;</TokenValue></a>",
	    "<a><TokenValue>&#0;</TokenValue></a>",
	    "<a><TokenValue>&#10;</TokenValue></a>",
	    "<a><TokenValue>&#99999999;</TokenValue></a>",
	    "<!DOCTYPE a><a><TokenValue>t</TokenValue></a>",
	    "<a b><TokenValue>t</TokenValue></a>",
	    "<a b=c><TokenValue>t</TokenValue></a>",
	    "<a b='<'><TokenValue>t</TokenValue></a>",
	    "<a><tokenvalue>t</tokenvalue></a>",
	    "<a><x><TokenValue>t</TokenValue></x></a>",
	    "<a><TokenValue>t</TokenValue><!-- </a>",
	    "{\"TokenValue\":\"t\"}",
	    "<a><TokenValue>\xff</TokenValue></a>",
	};
	long live = tnl_alloc_live();
	char *token;

	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		assert_int_equal(tnl_create_reply_parse(good[i], strlen(good[i]), &token), 0);
		assert_string_equal(token, "t<&AB");
		tnl_free(token);
		for (size_t n = 0; n < strlen(good[i]) - 1; n++) {
			uint8_t *p = exact_copy(good[i], n);
			assert_int_equal(tnl_create_reply_parse(p, n, &token), TNL_ESYNTAX);
			free(p);
		}
	}
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (tnl_create_reply_parse(bad[i], strlen(bad[i]), &token) != TNL_ESYNTAX)
			fail_msg("accepted: %s", bad[i]);
	tnl_create_reply_write(&out, "R", "a<b>&c");
	assert_int_equal(tnl_create_reply_parse(tnl_buf_data(&out), tnl_buf_len(&out), &token), 0);
	assert_string_equal(token, "a<b>&c");
	tnl_free(token);
	tnl_buf_reset(&out);
	assert_int_equal(tnl_alloc_live(), live);
}

#define DOC                                                                                                                            \
	"{\"schemaVersion\":\"1.0\",\"sessionType\":\"Port\",\"parameters\":{\"portNumber\":{\"type\":\"String\",\"default\":\"80\"}," \
	"\"host\":{\"default\":\"localhost\"}},\"properties\":{\"type\":\"LocalPortForwarding\",\"portNumber\":\"{{ portNumber }}\","  \
	"\"host\":\"{{host}}\",\"z\":[1,true,null,\"a{{ unknown }}b{{\"],\"n\":{\"b\":\"x{{portNumber}}y\",\"a\":2}}}"

static void start_of_a_session(void **state)
{
	struct tnl_start s;
	const char *fault;

	assert_int_equal(tnl_start_write(&out, "ops-0123@x.y", "AWS-Doc", DOC,
					 "{\"portNumber\":\"5432\",\"host\":\"{{portNumber}}\"}", "arn:o", NULL, NULL),
			 0);
	assert_int_equal(tnl_start_parse(tnl_buf_data(&out), tnl_buf_len(&out), &s, &fault), 0);
	assert_string_equal(s.session_id, "ops-0123@x.y");
	assert_string_equal(s.document_name, "AWS-Doc");
	assert_string_equal(s.session_type, "Port");
	assert_string_equal(s.session_owner, "arn:o");
	assert_string_equal(s.run_as, "");
	assert_null(s.kms_key_id);
	assert_null(s.inputs_json);
	/* Sorted members, parameters put in once, what is not a parameter untouched. */
	assert_string_equal(s.properties_json,
			    "{\"host\":\"{{portNumber}}\",\"n\":{\"a\":2,\"b\":\"x5432y\"},\"portNumber\":\"5432\","
			    "\"type\":\"LocalPortForwarding\",\"z\":[1,true,null,\"a{{ unknown }}b{{\"]}");
	tnl_start_fini(&s);
	tnl_buf_reset(&out);

	/* AWS: keys in lower case, no value given: the default. */
	static const char lower[] =
	    "{\"schemaVersion\":1,\"taskId\":\"x\",\"topic\":\"t\",\"content\":\"{\\\"sessionId\\\":\\\"s-1\\\","
	    "\\\"documentContent\\\":{\\\"sessionType\\\":\\\"Standard_Stream\\\",\\\"inputs\\\":{\\\"kmsKeyId\\\":\\\"arn:k\\\"}},"
	    "\\\"parameters\\\":{}}\"}";
	assert_int_equal(tnl_start_parse(lower, sizeof(lower) - 1, &s, &fault), 0);
	assert_string_equal(s.session_type, "Standard_Stream");
	assert_string_equal(s.kms_key_id, "arn:k");
	assert_string_equal(s.inputs_json, "{\"kmsKeyId\":\"arn:k\"}");
	assert_string_equal(s.properties_json, "{}");
	assert_null(s.document_name);
	tnl_start_fini(&s);
	tnl_start_write(&out, "s", "d", DOC, NULL, NULL, NULL, NULL);
	assert_int_equal(tnl_start_parse(tnl_buf_data(&out), tnl_buf_len(&out), &s, &fault), 0);
	assert_non_null(strstr(s.properties_json, "\"portNumber\":\"80\""));
	assert_non_null(strstr(s.properties_json, "\"host\":\"localhost\""));
	tnl_start_fini(&s);
	tnl_buf_reset(&out);
}

static void grants_of_a_session(void **state)
{
	for (unsigned given = 0; given < 4; given++) {
		const struct tnl_start_grants g = {.dial = given & 1, .reverse = given & 2};
		struct tnl_start s;
		const char *fault;
		assert_int_equal(tnl_start_write(&out, "s", "d", DOC, "{\"TunneldGrants\":{\"Reverse\":true}}", NULL,
						 NULL, given ? &g : NULL),
				 0);
		assert_int_equal(tnl_start_parse(tnl_buf_data(&out), tnl_buf_len(&out), &s, &fault), 0);
		assert_int_equal(s.grants.dial, g.dial);
		assert_int_equal(s.grants.reverse, g.reverse);
		tnl_start_fini(&s);
		tnl_buf_reset(&out);
	}
}

static void refuse_start(const char *id, const char *doc, const char *want)
{
	struct tnl_start s;
	const char *fault = NULL;

	tnl_buf_reset(&out);
	tnl_start_write(&out, id, "d", doc, NULL, NULL, NULL, NULL);
	assert_int_equal(tnl_start_parse(tnl_buf_data(&out), tnl_buf_len(&out), &s, &fault), TNL_ESYNTAX);
	assert_string_equal(fault, want);
	tnl_buf_reset(&out);
}

static void bad_starts(void **state)
{
	static char many[60000];

	tnl_buf_fini(&out);
	long live = tnl_alloc_live();

	refuse_start("", DOC, "SessionId");
	refuse_start("..", DOC, "SessionId");
	refuse_start("a/b", DOC, "SessionId");
	refuse_start("a b", DOC, "SessionId");
	refuse_start("a\nb", DOC, "SessionId");
	refuse_start("s", "[]", "DocumentContent");
	refuse_start("s", "{}", "sessionType");
	refuse_start("s", "{\"sessionType\":7}", "sessionType");
	refuse_start("s", "{\"sessionType\":", "Content");
	size_t n = (size_t)sprintf(many, "{\"sessionType\":\"Port\",\"properties\":{\"a\":0");
	for (int i = 0; i < 300; i++)
		n += (size_t)sprintf(many + n, ",\"k%d\":0", i);
	strcpy(many + n, "}}");
	refuse_start("s", many, "properties");
	/* Short placeholders for a long value must not blow up. */
	n = (size_t)sprintf(
	    many,
	    "{\"sessionType\":\"Port\",\"parameters\":{\"p\":{\"default\":\"%020000d\"}},\"properties\":{\"l\":[0", 1);
	for (int i = 0; i < 1000; i++)
		n += (size_t)sprintf(many + n, ",\"{{p}}{{p}}\"");
	strcpy(many + n, "]}}");
	refuse_start("s", many, "properties");
	tnl_buf_fini(&out);
	assert_int_equal(tnl_alloc_live(), live);
}

static void closed_and_tasks(void **state)
{
	struct tnl_channel_closed c = {.message_id = (char *)"m",
				       .session_id = (char *)"s",
				       .destination_id = (char *)"d",
				       .output = (char *)"bye\n",
				       .created_ms = 1795338608000},
				  d;
	struct tnl_task t;

	assert_int_equal(tnl_channel_closed_write(&out, &c), 0);
	assert_string_equal(
	    tnl_buf_str(&out),
	    "{\"MessageId\":\"m\",\"CreatedDate\":\"2026-11-22T09:10:08.000Z\",\"DestinationId\":\"d\",\"SessionId\":\"s\","
	    "\"MessageType\":\"channel_closed\",\"SchemaVersion\":1,\"Output\":\"bye\\n\"}");
	assert_int_equal(tnl_channel_closed_parse(tnl_buf_data(&out), tnl_buf_len(&out), &d), 0);
	assert_string_equal(d.output, "bye\n");
	assert_int_equal(d.created_ms, c.created_ms);
	tnl_channel_closed_fini(&d);
	assert_int_equal(tnl_channel_closed_parse("{}", 2, &d), 0);
	assert_null(d.output);
	assert_int_equal(tnl_channel_closed_parse("{\"Output\":7}", 12, &d), TNL_ESYNTAX);
	tnl_buf_reset(&out);
	assert_int_equal(tnl_task_ack_write(&out, "m", "s", "agent_task_complete"), 0);
	assert_int_equal(tnl_task_parse(tnl_buf_data(&out), tnl_buf_len(&out), &t), 0);
	assert_string_equal(t.message_id, "m");
	assert_string_equal(t.task_id, "s");
	tnl_task_fini(&t);
	assert_int_equal(tnl_task_parse("{\"Topic\":\"x\"}", 13, &t), TNL_ESYNTAX);
	tnl_buf_reset(&out);
	tnl_publication_write(&out, "s");
	assert_string_equal(tnl_buf_str(&out), "{\"SessionId\":\"s\",\"SchemaVersion\":1}");
	tnl_buf_reset(&out);
}

/* "…KEY":"xxxx…" with so much text in it, behind a head and before a tail. */
static const char *with_long(const char *head, size_t n, const char *unit, const char *tail)
{
	static char text[400000];
	size_t at = (size_t)sprintf(text, "%s", head);

	for (size_t i = 0; i < n; i++)
		at += (size_t)sprintf(text + at, "%s", unit);
	sprintf(text + at, "%s", tail);
	return text;
}

/* What a peer says is kept up to a bound: texts lose their end, names that long are no names. */
static void long_texts(void **state)
{
	struct tnl_task t;
	struct tnl_channel_closed c;
	struct tnl_open o;
	const char *s, *fault;
	char *message;
	long live = tnl_alloc_live();

	s = with_long("{\"TaskId\":\"t\",\"Output\":\"", 100000, "\xc3\xa4", "\"}");
	assert_int_equal(tnl_task_parse(s, strlen(s), &t), 0);
	assert_int_equal(strlen(t.output), TNL_TEXT_MAX);
	tnl_task_fini(&t);
	s = with_long("{\"TaskId\":\"t\",\"Output\":\"x", 100000, "\xc3\xa4", "\"}"); /* not in mid-character */
	assert_int_equal(tnl_task_parse(s, strlen(s), &t), 0);
	assert_int_equal(strlen(t.output), TNL_TEXT_MAX - 1);
	assert_true(tnl_utf8_valid((const uint8_t *)t.output, strlen(t.output)));
	/* written anew, each byte of it escaped, it fits where it is passed on */
	memset(t.output, 1, strlen(t.output));
	c = (struct tnl_channel_closed){.session_id = t.task_id, .output = t.output};
	tnl_buf_reset(&out);
	assert_int_equal(tnl_channel_closed_write(&out, &c), 0);
	assert_in_range(tnl_buf_len(&out), 6 * (TNL_TEXT_MAX - 1), 8 * TNL_TEXT_MAX);
	tnl_buf_reset(&out);
	tnl_task_fini(&t);
	s = with_long("{\"TaskId\":\"", 1000, "t", "\"}");
	assert_int_equal(tnl_task_parse(s, strlen(s), &t), TNL_ESYNTAX);
	s = with_long("{\"SessionId\":\"s\",\"Output\":\"", 200000, "x", "\"}");
	assert_int_equal(tnl_channel_closed_parse(s, strlen(s), &c), 0);
	assert_int_equal(strlen(c.output), TNL_TEXT_MAX);
	tnl_channel_closed_fini(&c);
	s = with_long("{\"MessageSchemaVersion\":\"1.0\",\"TokenValue\":\"t\",\"AgentVersion\":\"", 1000, "1", "\"}");
	assert_int_equal(tnl_open_parse(s, strlen(s), &o, &fault), TNL_ESYNTAX);
	assert_string_equal(fault, "AgentVersion");
	s = with_long("{\"HandshakeTimeToComplete\":1,\"CustomerMessage\":\"", 60000, "x", "\"}");
	assert_int_equal(tnl_hs_complete_parse(s, strlen(s), &message), 0);
	assert_int_equal(strlen(message), TNL_TEXT_MAX);
	tnl_free(message);
	struct tnl_hs_response a;
	s = with_long(
	    "{\"ClientVersion\":\"1\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":2,"
	    "\"Error\":\"",
	    60000, "x", "\"}]}");
	assert_int_equal(tnl_hs_response_parse(s, strlen(s), &a, &fault), 0);
	assert_int_equal(strlen(a.error), TNL_TEXT_MAX);
	tnl_hs_response_fini(&a);
	s = with_long("{\"ClientVersion\":\"", 60000, "1", "\",\"ProcessedClientActions\":[]}");
	assert_int_equal(tnl_hs_response_parse(s, strlen(s), &a, &fault), TNL_ESYNTAX);
	assert_int_equal(tnl_alloc_live(), live);
}

static void versions(void **state)
{
	static const char *const bad[] = {"",	      "1.2.3",	  "1.2.3.4.5", "1..3.4",	  "1.2.3.x",
					  "1.2.3.4 ", "v1.2.3.4", "1.2.3.",    "1.2.3.1111111111"};
	bool ok;

	assert_int_equal(tnl_version_cmp("1.2.764.0", "1.2.331.0", &ok), 1);
	assert_true(ok);
	assert_int_equal(tnl_version_cmp("3.0.196.0", "3.0.196.0", &ok), 0);
	assert_int_equal(tnl_version_cmp("1.1.70.0", "1.2.0.0", &ok), -1);
	assert_int_equal(tnl_version_cmp("1.10.0.0", "1.9.0.0", NULL), 1);
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		tnl_version_cmp(bad[i], "1.2.3.4", &ok);
		assert_false(ok);
	}
	tnl_version_cmp(NULL, "1.2.3.4", &ok);
	assert_false(ok);
}

/* Whichever allocation fails: an error, and nothing is left behind. */
static void memory_failure(void **state)
{
	struct tnl_start s;
	const char *fault;

	tnl_start_write(&out, "s", "d", DOC, NULL, "o", "u", NULL);
	long live = tnl_alloc_live();
	for (long after = 0;; after++) {
		tnl_alloc_fail_after(after, 1);
		int rc = tnl_start_parse(tnl_buf_data(&out), tnl_buf_len(&out), &s, &fault);
		tnl_alloc_fail_after(-1, 0);
		tnl_start_fini(&s);
		assert_int_equal(tnl_alloc_live(), live);
		if (!rc)
			break;
		assert_true(after < 1000);
	}
	tnl_buf_reset(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(captured_payloads),
	    cmocka_unit_test(first_frames),
	    cmocka_unit_test(creation_answers),
	    cmocka_unit_test(start_of_a_session),
	    cmocka_unit_test(grants_of_a_session),
	    cmocka_unit_test(bad_starts),
	    cmocka_unit_test(closed_and_tasks),
	    cmocka_unit_test(long_texts),
	    cmocka_unit_test(versions),
	    cmocka_unit_test(memory_failure),
	};
	tnl_buf_init(&out, 1 << 20);
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	tnl_buf_fini(&out);
	return rc;
}
