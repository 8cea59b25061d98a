/* The JSON of the handshake, written as the stock ends write it and read as they read it:
 * unknown members are ignored, unknown actions are remembered so that they can be answered. */
#include "lib/handshake.h"
#include "lib/stock.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/head.h"
#include "lib/json.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

#define CAPS_NAME "TunneldCapabilities"
#define CAPS_CRC32C "CRC32C"

struct tnl_caps tnl_caps_meet(const struct tnl_caps *a, const struct tnl_caps *b)
{
	struct tnl_caps c = {0};
	if (!a->present || !b->present)
		return c;
	c.present = true;
	c.version = TNL_MIN(a->version, b->version);
	c.smux = TNL_MIN(a->smux, b->smux);
	c.max_payload = TNL_MIN(a->max_payload, b->max_payload);
	c.half_close = a->half_close && b->half_close;
	c.crc32c = a->crc32c && b->crc32c;
	c.encrypt = a->encrypt && b->encrypt;
	c.seal = TNL_MIN(a->seal, b->seal);
	c.link_queue = a->link_queue && b->link_queue;
	c.links = TNL_MIN(a->links, b->links);
	c.direct = TNL_MIN(a->direct, b->direct);
	c.reset_words = a->reset_words && b->reset_words;
	c.opens = a->opens && b->opens;
	c.udp = a->udp && b->udp && c.opens;
	c.reverse = a->reverse && b->reverse && c.half_close;
	c.dial = TNL_MIN(a->dial, b->dial);
	memcpy(c.program, b->program, sizeof(c.program));
	return c;
}

static void caps_write(struct tnl_jw *w, const struct tnl_caps *c)
{
	tnl_jw_obj(w);
	tnl_jw_kvi(w, "Version", c->version);
	tnl_jw_kvi(w, "MaxPayload", (int64_t)c->max_payload);
	tnl_jw_kvi(w, "Smux", c->smux);
	tnl_jw_key(w, "HalfClose");
	tnl_jw_bool(w, c->half_close);
	tnl_jw_key(w, "Digest");
	if (c->crc32c)
		tnl_jw_str(w, CAPS_CRC32C);
	else
		tnl_jw_bool(w, true); /* SHA-256 */
	tnl_jw_key(w, "Encrypt");
	tnl_jw_bool(w, c->encrypt);
	if (c->seal)
		tnl_jw_kvi(w, "Seal", c->seal);
	if (c->program[0])
		tnl_jw_kv(w, "Program", c->program);
	if (c->reset_words) {
		tnl_jw_key(w, "ResetWords");
		tnl_jw_bool(w, true);
	}
	if (c->opens) {
		tnl_jw_key(w, "Opens");
		tnl_jw_bool(w, true);
	}
	if (c->link_queue) {
		tnl_jw_key(w, "LinkQueue");
		tnl_jw_bool(w, true);
	}
	if (c->links > 1)
		tnl_jw_kvi(w, "Links", c->links);
	if (c->direct)
		tnl_jw_kvi(w, "Direct", c->direct);
	if (c->reverse) {
		tnl_jw_key(w, "Reverse");
		tnl_jw_bool(w, true);
	}
	if (c->dial)
		tnl_jw_kvi(w, "Dial", c->dial);
	if (c->udp) {
		tnl_jw_key(w, "Udp");
		tnl_jw_bool(w, true);
	}
	tnl_jw_end_obj(w);
}

/* Anything odd means "not agreed", never an error: the action is optional. */
static void caps_parse(const struct tnl_json *o, struct tnl_caps *c)
{
	int64_t version, payload, smux, seal, links, direct, dial;
	if (!tnl_json_is_obj(o) || !tnl_json_int(tnl_json_get(o, "Version"), &version) || version < 1 ||
	    !tnl_json_int(tnl_json_get(o, "MaxPayload"), &payload) || payload < (int64_t)TNL_MIN_PAYLOAD ||
	    !tnl_json_int(tnl_json_get(o, "Smux"), &smux) || smux < 1)
		return;
	c->present = true;
	c->version = (int)TNL_MIN(version, TNL_CAPS_VERSION);
	c->max_payload = (size_t)TNL_MIN(payload, INT32_MAX);
	c->smux = (int)TNL_MIN(smux, 2);
	c->half_close = tnl_json_bool(tnl_json_get(o, "HalfClose"), false);
	const char *digest = tnl_json_get_str(o, "Digest");
	c->crc32c = digest && strcmp(digest, CAPS_CRC32C) == 0;
	c->encrypt = tnl_json_bool(tnl_json_get(o, "Encrypt"), false);
	if (tnl_json_int(tnl_json_get(o, "Seal"), &seal) && seal >= TNL_CAPS_SEAL)
		c->seal = TNL_CAPS_SEAL;
	c->reset_words = tnl_json_bool(tnl_json_get(o, "ResetWords"), false);
	c->opens = tnl_json_bool(tnl_json_get(o, "Opens"), false);
	c->udp = tnl_json_bool(tnl_json_get(o, "Udp"), false);
	c->reverse = tnl_json_bool(tnl_json_get(o, "Reverse"), false);
	const char *program = tnl_json_get_str(o, "Program");
	snprintf(c->program, sizeof(c->program), "%s", program ? program : "");
	c->link_queue = tnl_json_bool(tnl_json_get(o, "LinkQueue"), false);
	if (tnl_json_int(tnl_json_get(o, "Links"), &links) && links > 1)
		c->links = (unsigned)TNL_MIN(links, TNL_CAPS_LINKS);
	if (tnl_json_int(tnl_json_get(o, "Direct"), &direct) && direct > 0)
		c->direct = direct == 1 ? TNL_DIRECT_AUTO : TNL_DIRECT_ONLY;
	if (tnl_json_int(tnl_json_get(o, "Dial"), &dial) && dial > 0)
		c->dial = (int)TNL_MIN(dial, TNL_DIAL_VERSION);
}

static void action_open(struct tnl_jw *w, const char *type)
{
	tnl_jw_obj(w);
	tnl_jw_kv(w, "ActionType", type);
	tnl_jw_key(w, "ActionParameters");
}

int tnl_hs_request_write(struct tnl_buf *b, const struct tnl_hs_request *r)
{
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "AgentVersion", r->agent_version);
	tnl_jw_key(&w, "RequestedClientActions");
	tnl_jw_arr(&w);
	action_open(&w, "SessionType");
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "SessionType", r->session_type);
	tnl_jw_key(&w, "Properties");
	if (r->properties_json)
		tnl_jw_raw(&w, r->properties_json);
	else
		tnl_jw_null(&w);
	tnl_jw_end_obj(&w);
	tnl_jw_end_obj(&w);
	if (r->kms) {
		action_open(&w, "KMSEncryption");
		tnl_jw_obj(&w);
		tnl_jw_kv(&w, "KMSKeyId", r->kms_key_id);
		if (r->challenge)
			tnl_jw_kv(&w, "Challenge", r->challenge);
		tnl_jw_end_obj(&w);
		tnl_jw_end_obj(&w);
	}
	if (r->caps.present) {
		action_open(&w, CAPS_NAME);
		caps_write(&w, &r->caps);
		tnl_jw_end_obj(&w);
	}
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

/* Longer than max is not of this protocol. */
static int dup_str(const struct tnl_json *v, size_t max, char **out)
{
	tnl_free(*out);
	*out = NULL;
	int rc = tnl_json_take_str(v, max, out);
	return rc == TNL_ELIMIT ? TNL_ESYNTAX : rc;
}

static int dup_json(const struct tnl_json *v, char **out)
{
	struct tnl_buf b;
	tnl_buf_init(&b, TNL_HS_MAX_JSON);
	int rc = tnl_json_print(v, &b);
	if (rc == 0) {
		tnl_free(*out);
		*out = tnl_buf_steal_str(&b);
		rc = *out ? 0 : TNL_ENOMEM;
	}
	tnl_buf_fini(&b);
	return rc;
}

static int request_action(const struct tnl_json *a, struct tnl_hs_request *r, const char **fault)
{
	const char *type = tnl_json_str(tnl_json_iget(a, "ActionType"));
	const struct tnl_json *par = tnl_json_iget(a, "ActionParameters");
	*fault = "ActionType";
	if (!type || r->nactions == TNL_HS_MAX_ACTIONS)
		return TNL_ESYNTAX;
	int i = r->nactions++, named = dup_str(tnl_json_iget(a, "ActionType"), TNL_WORD_MAX, &r->actions[i].name);
	if (named)
		return named;
	if (strcmp(type, "SessionType") == 0) {
		r->actions[i].kind = TNL_ACT_SESSION_TYPE;
		*fault = "SessionType";
		int rc = dup_str(tnl_json_iget(par, "SessionType"), TNL_WORD_MAX, &r->session_type);
		const struct tnl_json *props = tnl_json_iget(par, "Properties");
		if (rc == 0 && props && !tnl_json_is_null(props))
			rc = dup_json(props, &r->properties_json);
		return rc;
	}
	if (strcmp(type, "KMSEncryption") == 0) {
		r->actions[i].kind = TNL_ACT_KMS;
		r->kms = true;
		*fault = "KMSKeyId";
		int rc = dup_str(tnl_json_iget(par, "KMSKeyId"), TNL_ARN_MAX, &r->kms_key_id);
		const char *ch = tnl_json_str(tnl_json_iget(par, "Challenge"));
		if (rc == 0 && ch && *ch)
			rc = dup_str(tnl_json_iget(par, "Challenge"), TNL_NAME_MAX, &r->challenge);
		return rc;
	}
	if (strcmp(type, CAPS_NAME) == 0) {
		r->actions[i].kind = TNL_ACT_CAPABILITIES;
		caps_parse(par, &r->caps);
	}
	return 0;
}

int tnl_hs_request_parse(const void *p, size_t n, struct tnl_hs_request *r, const char **fault)
{
	const char *dummy;
	if (!fault)
		fault = &dummy;
	memset(r, 0, sizeof(*r));
	*fault = "HandshakeRequest";
	struct tnl_json *root = n <= TNL_HS_MAX_JSON ? tnl_json_parse(p, n) : NULL;
	if (!root)
		return TNL_ESYNTAX;
	const struct tnl_json *acts = tnl_json_iget(root, "RequestedClientActions");
	*fault = "AgentVersion";
	int rc = dup_str(tnl_json_iget(root, "AgentVersion"), TNL_WORD_MAX, &r->agent_version);
	if (rc == 0 && !tnl_json_is_arr(acts)) {
		*fault = "RequestedClientActions";
		rc = TNL_ESYNTAX;
	}
	for (const struct tnl_json *v = tnl_json_first(acts); rc == 0 && v; v = tnl_json_next(v))
		rc = request_action(v, r, fault);
	if (rc == 0 && !r->session_type) {
		*fault = "SessionType";
		rc = TNL_ESYNTAX;
	}
	tnl_json_free(root);
	if (rc)
		tnl_hs_request_fini(r);
	return rc;
}

void tnl_hs_request_fini(struct tnl_hs_request *r)
{
	tnl_free(r->agent_version);
	tnl_free(r->session_type);
	tnl_free(r->properties_json);
	tnl_free(r->kms_key_id);
	tnl_free(r->challenge);
	for (int i = 0; i < r->nactions; i++)
		tnl_free(r->actions[i].name);
	memset(r, 0, sizeof(*r));
}

static void processed(struct tnl_jw *w, const char *type, int status)
{
	tnl_jw_obj(w);
	tnl_jw_kv(w, "ActionType", type);
	tnl_jw_kvi(w, "ActionStatus", status);
	tnl_jw_key(w, "ActionResult");
}

static void kms_result_write(struct tnl_jw *w, const struct tnl_hs_request *r, const struct tnl_hs_response *a)
{
	if (a->kms_status != TNL_ACTION_OK) {
		tnl_jw_null(w);
		return;
	}
	char *text = tnl_malloc(TNL_B64_LEN(a->ciphertext_len) + 1);
	if (!text) {
		w->b->failed = true;
		return;
	}
	tnl_b64(a->ciphertext, a->ciphertext_len, text);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "KMSCipherTextKey", text);
	tnl_jw_key(w, "KMSCipherTextHash");
	tnl_jw_null(w);
	if (r->challenge) {
		tnl_jw_key(w, "ChallengeAcknowledgement");
		tnl_jw_bool(w, a->challenge_ack);
	}
	tnl_jw_end_obj(w);
	tnl_free(text);
}

int tnl_hs_response_write(struct tnl_buf *b, const struct tnl_hs_request *r, const struct tnl_hs_response *a)
{
	struct tnl_jw w;
	bool other = false;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "ClientVersion", a->client_version);
	tnl_jw_key(&w, "ProcessedClientActions");
	tnl_jw_arr(&w);
	for (int i = 0; i < r->nactions; i++) {
		const char *error = "";
		switch (r->actions[i].kind) {
		case TNL_ACT_SESSION_TYPE:
			processed(&w, r->actions[i].name, a->session_type_status);
			tnl_jw_null(&w);
			error = a->session_type_status != TNL_ACTION_OK && a->error ? a->error : "";
			break;
		case TNL_ACT_KMS:
			processed(&w, r->actions[i].name, a->kms_status);
			kms_result_write(&w, r, a);
			error = a->kms_status != TNL_ACTION_OK && a->error ? a->error : "";
			break;
		case TNL_ACT_CAPABILITIES:
			if (a->caps.present) {
				processed(&w, r->actions[i].name, TNL_ACTION_OK);
				caps_write(&w, &a->caps);
				break;
			}
			/* fall through */
		case TNL_ACT_OTHER:
			/* As the stock client answers what it does not know. */
			processed(&w, r->actions[i].name, 0);
			tnl_jw_int(&w, TNL_ACTION_UNSUPPORTED);
			other = true;
			break;
		}
		tnl_jw_kv(&w, "Error", error);
		tnl_jw_end_obj(&w);
	}
	tnl_jw_end_arr(&w);
	tnl_jw_key(&w, "Errors");
	if (other) {
		tnl_jw_arr(&w);
		for (int i = 0; i < r->nactions; i++) {
			enum tnl_hs_action k = r->actions[i].kind;
			if (k == TNL_ACT_OTHER || (k == TNL_ACT_CAPABILITIES && !a->caps.present))
				tnl_jw_str(&w, "Unsupported action type");
		}
		tnl_jw_end_arr(&w);
	} else {
		tnl_jw_null(&w);
	}
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

static int response_kms(const struct tnl_json *result, struct tnl_hs_response *a, const char **fault)
{
	const char *text = tnl_json_str(tnl_json_iget(result, "KMSCipherTextKey"));
	*fault = "KMSCipherTextKey";
	if (!text || !*text || a->ciphertext)
		return TNL_ESYNTAX;
	size_t n = strlen(text);
	if (n > TNL_B64_LEN(TNL_HS_CIPHERTEXT_MAX))
		return TNL_ESYNTAX;
	a->ciphertext = tnl_malloc(n);
	if (!a->ciphertext)
		return TNL_ENOMEM;
	int got = tnl_unb64(text, n, a->ciphertext, n);
	if (got <= 0)
		return TNL_ESYNTAX;
	a->ciphertext_len = (size_t)got;
	a->challenge_ack = tnl_json_bool(tnl_json_iget(result, "ChallengeAcknowledgement"), false);
	return 0;
}

static int response_action(const struct tnl_json *o, struct tnl_hs_response *a, const char **fault)
{
	const char *type = tnl_json_str(tnl_json_iget(o, "ActionType"));
	const struct tnl_json *result = tnl_json_iget(o, "ActionResult");
	int64_t status;
	*fault = "ActionStatus";
	if (!type || !tnl_json_int(tnl_json_iget(o, "ActionStatus"), &status) || status < 0 || status > 1000)
		return TNL_ESYNTAX;
	bool known = true;
	int rc = 0;
	if (strcmp(type, "SessionType") == 0) {
		a->session_type_status = status ? (int)status : TNL_ACTION_FAILED;
	} else if (strcmp(type, "KMSEncryption") == 0) {
		a->kms_status = status ? (int)status : TNL_ACTION_FAILED;
		if (status == TNL_ACTION_OK)
			rc = response_kms(result, a, fault);
	} else {
		known = false;
		if (strcmp(type, CAPS_NAME) == 0 && status == TNL_ACTION_OK)
			caps_parse(result, &a->caps);
	}
	const char *error = tnl_json_str(tnl_json_iget(o, "Error"));
	if (rc == 0 && known && status != TNL_ACTION_OK && !a->error && error && *error)
		rc = tnl_json_cut_str(tnl_json_iget(o, "Error"), TNL_TEXT_MAX, &a->error);
	return rc;
}

int tnl_hs_response_parse(const void *p, size_t n, struct tnl_hs_response *a, const char **fault)
{
	const char *dummy;
	if (!fault)
		fault = &dummy;
	memset(a, 0, sizeof(*a));
	*fault = "HandshakeResponse";
	struct tnl_json *root = n <= TNL_HS_MAX_JSON ? tnl_json_parse(p, n) : NULL;
	if (!root)
		return TNL_ESYNTAX;
	const struct tnl_json *acts = tnl_json_iget(root, "ProcessedClientActions");
	*fault = "ClientVersion";
	int rc = dup_str(tnl_json_iget(root, "ClientVersion"), TNL_WORD_MAX, &a->client_version);
	if (rc == 0 && !tnl_json_is_arr(acts)) {
		*fault = "ProcessedClientActions";
		rc = TNL_ESYNTAX;
	}
	for (const struct tnl_json *v = tnl_json_first(acts); rc == 0 && v; v = tnl_json_next(v))
		rc = response_action(v, a, fault);
	tnl_json_free(root);
	if (rc)
		tnl_hs_response_fini(a);
	return rc;
}

void tnl_hs_response_fini(struct tnl_hs_response *a)
{
	tnl_free(a->client_version);
	tnl_free(a->error);
	tnl_free(a->ciphertext);
	memset(a, 0, sizeof(*a));
}

int tnl_hs_complete_write(struct tnl_buf *b, uint64_t took_ns, const char *customer_message)
{
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kvi(&w, "HandshakeTimeToComplete", (int64_t)(took_ns & INT64_MAX));
	tnl_jw_kv(&w, "CustomerMessage", customer_message ? customer_message : "");
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

int tnl_hs_complete_parse(const void *p, size_t n, char **customer_message)
{
	*customer_message = NULL;
	struct tnl_json *root = n <= TNL_HS_MAX_JSON ? tnl_json_parse(p, n) : NULL;
	if (!root)
		return TNL_ESYNTAX;
	const struct tnl_json *m = tnl_json_iget(root, "CustomerMessage");
	int rc = tnl_json_cut_str(m, TNL_TEXT_MAX, customer_message);
	tnl_json_free(root);
	if (rc == TNL_ESYNTAX) /* none */
		*customer_message = tnl_strdup("");
	return *customer_message ? 0 : TNL_ENOMEM;
}

int tnl_hs_challenge_write(struct tnl_buf *b, const uint8_t *sealed, size_t n)
{
	char text[TNL_B64_LEN(256) + 1];
	if (n > 256)
		return TNL_EINVAL;
	tnl_b64(sealed, n, text);
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Challenge", text);
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

int tnl_hs_challenge_parse(const void *p, size_t n, uint8_t *out, size_t cap)
{
	struct tnl_json *root = n <= TNL_HS_MAX_JSON ? tnl_json_parse(p, n) : NULL;
	const char *text = tnl_json_str(tnl_json_iget(root, "Challenge"));
	int rc = text ? tnl_unb64(text, strlen(text), out, cap) : TNL_ESYNTAX;
	tnl_json_free(root);
	return rc < 0 ? TNL_ESYNTAX : rc;
}

/* v > floor (or ≥ with `or_equal`); a version that is not four numbers is older than all. */
static bool version_over(const char *v, const char *floor, bool or_equal)
{
	bool ok = false;
	int c = tnl_version_cmp(v, floor, &ok);
	return ok && (c > 0 || (or_equal && c == 0));
}

bool tnl_agent_version_terminate(const char *v)
{
	return version_over(v, TNL_AGENT_TERMINATE, false);
}

bool tnl_agent_version_mux(const char *v)
{
	return version_over(v, TNL_AGENT_MUX, false);
}
bool tnl_client_version_mux(const char *v)
{
	return version_over(v, TNL_CLIENT_MUX, true);
}
bool tnl_agent_version_smux_keepalive(const char *v)
{
	return !version_over(v, TNL_AGENT_QUIET_MUX, false);
}
bool tnl_client_version_smux_keepalive(const char *v)
{
	return !version_over(v, TNL_CLIENT_QUIET_MUX, false);
}
