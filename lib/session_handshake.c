/* The order of the handshake, both ends (docs/protocol.md "Handshake").
 *
 * agent:  link → Request → [Response] → (KMS Decrypt → Challenge → [Answer]) → Complete → READY
 * client: link → [Request] → (KMS GenerateDataKey) → Response → ([Challenge] → Answer) → [Complete] → READY
 *
 * Messages towards the client leave one by one, each after the ack of the one before. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/session_internal.h"
#include <stdio.h>
#include <string.h>

#define AFTER_COMPLETE_HOLD (50 * TNL_MS) /* what reaches a stock client before its port is open can leave it deaf */
#define OLD_SMUX_KEEPALIVE (10000 * TNL_MS)

static struct tnl_caps own_caps(const struct tnl_session *s)
{
	size_t payload = TNL_MAX(s->cfg.max_payload, TNL_MIN_PAYLOAD);
	struct tnl_caps c = {.present = s->cfg.offer_capabilities,
			     .version = TNL_CAPS_VERSION,
			     .smux = 2,
			     .max_payload = payload,
			     .half_close = true,
			     .crc32c = true,
			     .encrypt = true,
			     .seal = TNL_CAPS_SEAL,
			     .reset_words = true,
			     .opens = true,
			     .program = TUNNELD_VERSION,
			     .link_queue = s->cfg.link_queue,
			     .links = TNL_MIN(s->cfg.links, (unsigned)TNL_CAPS_LINKS),
			     .direct = s->cfg.direct,
			     .udp = s->cfg.udp,
			     .reverse = s->cfg.reverse,
			     .dial = s->cfg.dial};
	return c;
}

static int refuse_because(struct tnl_session *s, int err, const char *why)
{
	snprintf(s->why, sizeof(s->why), "%s", why);
	return err;
}

static bool is_port(const struct tnl_session *s)
{
	return strcmp(s->session_type, "Port") == 0;
}

static enum tnl_session_mode mode_of(const char *type, const char *properties, bool peer_muxes)
{
	if (strcmp(type, "Standard_Stream") == 0 || strcmp(type, "InteractiveCommands") == 0)
		return TNL_MODE_SHELL;
	if (strcmp(type, "NonInteractiveCommands") == 0)
		return TNL_MODE_COMMAND;
	if (strcmp(type, "Port") != 0)
		return TNL_MODE_UNKNOWN;
	struct tnl_json *j = properties ? tnl_json_parse(properties, strlen(properties)) : NULL;
	const char *t = tnl_json_get_str(j, "type");
	bool local = t && strcmp(t, "LocalPortForwarding") == 0;
	tnl_json_free(j);
	if (!local)
		return TNL_MODE_SINGLE;
	return peer_muxes ? TNL_MODE_MUX : TNL_MODE_BASIC;
}

static int take_str(char **dst, const char *src)
{
	char *copy = tnl_strdup(src);
	if (!copy)
		return TNL_ENOMEM;
	tnl_free(*dst);
	*dst = copy;
	return 0;
}

static bool carries_datagrams(const struct tnl_session *s)
{
	return s->caps.udp && s->caps.half_close && s->info.mode == TNL_MODE_MUX;
}

/* Both ends know now what the session is. */
static int settle_mode(struct tnl_session *s, bool peer_muxes)
{
	s->info.mode = mode_of(s->session_type, s->properties, peer_muxes);
	if (s->info.mode == TNL_MODE_UNKNOWN) {
		snprintf(s->why, sizeof(s->why), "unknown session type %.60s", s->session_type);
		return TNL_EREFUSED;
	}
	if (s->info.mode != TNL_MODE_MUX || !s->caps.half_close || !s->caps.opens || s->caps.smux < 2)
		s->caps.dial = 0;
	if (s->cfg.require_dial && !s->caps.dial)
		return refuse_because(s, TNL_EREFUSED,
				      "the agent takes no destinations in this session: it is no tunneld that does, or "
				      "the gateway limits the hosts or ports of this user");
	if (s->cfg.udp && !s->cfg.agent && !carries_datagrams(s))
		return refuse_because(
		    s, TNL_EREFUSED,
		    "the agent carries no datagrams: it is no tunneld that does, or its `allow` has no "
		    "udp: rule");
	if (!s->cfg.require_encryption)
		return 0;
	if (!s->req.kms)
		return refuse_because(s, TNL_EREFUSED,
				      "the session is not encrypted and require_encryption is set: "
				      "give the document or the agent a KMS key");
	if (is_port(s) && s->caps.present && !s->caps.encrypt)
		return refuse_because(s, TNL_EREFUSED,
				      "the peer does not encrypt port sessions and require_encryption is set: "
				      "both ends have to be tunneld for that");
	return 0;
}

static uint64_t step_time(const struct tnl_session *s)
{
	uint64_t dflt = (s->cfg.agent ? 15000 : 60000) * TNL_MS;
	return s->cfg.handshake_timeout_ns ? s->cfg.handshake_timeout_ns : dflt;
}

static void set_step(struct tnl_session *s, enum tnl_hs_step step, uint64_t now)
{
	static const char *const names[] = {"idle",	  "wait-response", "wait-kms",	    "wait-challenge",
					    "completing", "wait-request",  "wait-complete", "done"};
	tnl_log(TNL_LOG_DEBUG, "session", "session=%s handshake %s -> %s", s->cfg.session_id, names[s->step],
		names[step]);
	s->step = step;
	if (step == TNL_HS_DONE)
		s->hs_deadline = TNL_NEVER;
	else if (s->cfg.agent || s->hs_deadline == TNL_NEVER)
		s->hs_deadline = now + step_time(s); /* the agent's time is per step, the client's for all */
}

/* --- agent ------------------------------------------------------------------------ */

static int make_request(struct tnl_session *s)
{
	struct tnl_hs_request *r = &s->req;
	int rc = take_str(&r->agent_version, s->cfg.version);
	if (rc == 0)
		rc = take_str(&r->session_type, s->cfg.session_type);
	if (rc == 0 && s->cfg.properties_json)
		rc = take_str(&r->properties_json, s->cfg.properties_json);
	if (rc == 0 && s->cfg.kms_key_id) {
		uint8_t rnd[16];
		char text[TNL_B64_LEN(sizeof(rnd)) + 1];
		tnl_random(rnd, sizeof(rnd));
		tnl_b64(rnd, sizeof(rnd), text);
		r->kms = true;
		rc = take_str(&r->kms_key_id, s->cfg.kms_key_id);
		if (rc == 0)
			rc = take_str(&r->challenge, text);
	}
	r->caps = own_caps(s);
	return rc;
}

int tnl_session_hs_start(struct tnl_session *s, uint64_t now)
{
	s->hs_started = now;
	s->state = TNL_SS_HANDSHAKE;
	if (!s->cfg.agent) {
		set_step(s, TNL_HS_WAIT_REQUEST, now);
		return 0;
	}
	int rc = take_str(&s->session_type, s->cfg.session_type);
	if (rc == 0 && s->cfg.properties_json)
		rc = take_str(&s->properties, s->cfg.properties_json);
	if (rc)
		return rc;
	if (s->cfg.skip_handshake) {
		rc = settle_mode(s, true);
		if (rc == 0)
			tnl_session_hs_ready(s, now);
		return rc;
	}
	struct tnl_buf b;
	tnl_buf_init(&b, TNL_HS_MAX_JSON);
	rc = make_request(s);
	if (rc == 0)
		rc = tnl_hs_request_write(&b, &s->req);
	tnl_session_hs_heard(s, false, tnl_buf_data(&b), tnl_buf_len(&b));
	if (rc == 0)
		rc = tnl_session_out_buf(s, TNL_PT_HANDSHAKE_REQUEST, &b, true);
	tnl_buf_fini(&b);
	if (rc == 0)
		set_step(s, TNL_HS_WAIT_RESPONSE, now);
	return rc;
}

static int send_complete(struct tnl_session *s, uint64_t now)
{
	struct tnl_buf b;
	const char *msg = s->cfg.customer_message;
	if (!msg)
		msg = s->seal ? "This session is encrypted using AWS KMS." : "";
	tnl_buf_init(&b, TNL_HS_MAX_JSON);
	int rc = tnl_hs_complete_write(&b, now - s->hs_started, msg);
	if (rc == 0)
		rc = tnl_session_out_buf(s, TNL_PT_HANDSHAKE_COMPLETE, &b, true);
	tnl_buf_fini(&b);
	if (rc == 0)
		set_step(s, TNL_HS_COMPLETING, now);
	return rc;
}

static int ask_kms(struct tnl_session *s, bool generate, const uint8_t *ciphertext, size_t n, uint64_t now)
{
	struct tnl_kms_request k = {.generate = generate,
				    .key_id = s->req.kms_key_id,
				    .ciphertext = ciphertext,
				    .ciphertext_len = n};
	if (!s->cb.on_kms)
		return refuse_because(s, TNL_EREFUSED, "the peer requires KMS encryption, which is not set up here");
	k.challenge = generate || s->challenge_acked ? s->req.challenge : NULL;
	set_step(s, TNL_HS_WAIT_KMS, now);
	tnl_session_cb_enter(s);
	s->cb.on_kms(s->cfg.ctx, &k);
	tnl_session_cb_leave(s);
	return 0;
}

static int check_response(struct tnl_session *s, const struct tnl_hs_response *a)
{
	if (a->session_type_status != TNL_ACTION_OK || (s->req.kms && a->kms_status != TNL_ACTION_OK)) {
		snprintf(s->why, sizeof(s->why), "the client refused the handshake's %s: %s",
			 a->session_type_status != TNL_ACTION_OK ? "SessionType" : "KMSEncryption",
			 a->error ? a->error : "no reason given");
		return TNL_EREFUSED;
	}
	s->challenge_acked = a->challenge_ack;
	if (s->req.kms && s->cfg.require_challenge_ack && !a->challenge_ack)
		return refuse_because(s, TNL_EREFUSED,
				      "the client did not acknowledge the random challenge, which is required here");
	return 0;
}

static int in_response(struct tnl_session *s, const struct tnl_msg *m, uint64_t now)
{
	struct tnl_hs_response a;
	const char *fault = "";
	tnl_session_hs_heard(s, true, m->payload, m->plen);
	int rc = tnl_hs_response_parse(m->payload, m->plen, &a, &fault);
	if (rc) {
		snprintf(s->why, sizeof(s->why), "bad handshake response: %s", fault);
		return rc;
	}
	rc = check_response(s, &a);
	if (rc == 0)
		rc = take_str(&s->peer_version, a.client_version);
	if (rc == 0) {
		struct tnl_caps own = own_caps(s);
		s->caps = tnl_caps_meet(&own, &a.caps); /* never more than was offered */
		s->peer_keepalive = tnl_client_version_smux_keepalive(s->peer_version);
		rc = settle_mode(s, tnl_client_version_mux(s->peer_version));
	}
	if (rc == 0)
		rc = s->req.kms ? ask_kms(s, false, a.ciphertext, a.ciphertext_len, now) : send_complete(s, now);
	tnl_hs_response_fini(&a);
	return rc;
}

static int in_challenge_answer(struct tnl_session *s, const struct tnl_msg *m, uint64_t now)
{
	uint8_t plain[TNL_HS_CHALLENGE];
	int rc = tnl_session_open_challenge(s, m, plain);
	if (rc)
		return rc;
	if (!tnl_ct_eq(plain, s->challenge, sizeof(plain)))
		return refuse_because(s, TNL_ECRYPTO, "the answer to the encryption challenge is wrong");
	tnl_wipe(s->challenge, sizeof(s->challenge));
	tnl_wipe(plain, sizeof(plain));
	return send_complete(s, now);
}

/* --- client ----------------------------------------------------------------------- */

static int send_response(struct tnl_session *s, const uint8_t *ciphertext, size_t clen, uint64_t now)
{
	struct tnl_hs_response a = {.client_version = s->version_text,
				    .session_type_status = TNL_ACTION_OK,
				    .kms_status = TNL_ACTION_OK,
				    .challenge_ack = true,
				    .caps = s->caps};
	snprintf(a.caps.program, sizeof(a.caps.program), "%s", TUNNELD_VERSION);
	uint8_t *copy = NULL;
	struct tnl_buf b;
	if (clen) {
		copy = tnl_malloc(clen);
		if (!copy)
			return TNL_ENOMEM;
		memcpy(copy, ciphertext, clen);
	}
	a.ciphertext = copy;
	a.ciphertext_len = clen;
	tnl_buf_init(&b, TNL_HS_MAX_JSON);
	int rc = tnl_hs_response_write(&b, &s->req, &a);
	tnl_session_hs_heard(s, true, tnl_buf_data(&b), tnl_buf_len(&b));
	if (rc == 0)
		rc = tnl_session_out_buf(s, TNL_PT_HANDSHAKE_RESPONSE, &b, false);
	tnl_buf_fini(&b);
	tnl_free(copy);
	if (rc == 0)
		set_step(s, TNL_HS_WAIT_COMPLETE, now);
	return rc;
}

static int in_request(struct tnl_session *s, const struct tnl_msg *m, uint64_t now)
{
	const char *fault = "";
	tnl_session_hs_heard(s, false, m->payload, m->plen);
	int rc = tnl_hs_request_parse(m->payload, m->plen, &s->req, &fault);
	if (rc) {
		snprintf(s->why, sizeof(s->why), "bad handshake request: %s", fault);
		return rc;
	}
	rc = take_str(&s->peer_version, s->req.agent_version);
	if (rc == 0)
		rc = take_str(&s->session_type, s->req.session_type);
	if (rc == 0 && s->req.properties_json)
		rc = take_str(&s->properties, s->req.properties_json);
	if (rc)
		return rc;
	if (s->cfg.expected_type && strcmp(s->cfg.expected_type, s->session_type) != 0) {
		snprintf(s->why, sizeof(s->why), "the agent opened a %.40s session instead of %.40s", s->session_type,
			 s->cfg.expected_type);
		return TNL_EREFUSED;
	}
	if (s->req.kms && s->cfg.kms_key_pin && strcmp(s->req.kms_key_id, s->cfg.kms_key_pin) != 0) {
		snprintf(s->why, sizeof(s->why),
			 "the session is to be encrypted with the key %.80s, not with kms_key_id %.80s",
			 s->req.kms_key_id, s->cfg.kms_key_pin);
		return TNL_EREFUSED;
	}
	struct tnl_caps own = own_caps(s);
	s->caps = tnl_caps_meet(&own, &s->req.caps);
	s->peer_keepalive = tnl_agent_version_smux_keepalive(s->peer_version);
	rc = settle_mode(s, tnl_agent_version_mux(s->peer_version));
	if (rc)
		return rc;
	return s->req.kms ? ask_kms(s, true, NULL, 0, now) : send_response(s, NULL, 0, now);
}

static int in_challenge(struct tnl_session *s, const struct tnl_msg *m)
{
	uint8_t plain[TNL_HS_CHALLENGE];
	int rc = tnl_session_open_challenge(s, m, plain);
	if (rc == 0 && tnl_session_seal_stripped(s, plain))
		rc =
		    refuse_because(s, TNL_ECRYPTO,
				   "what the agent offered did not come through: the handshake was changed on its way");
	if (rc == 0)
		rc = tnl_session_send_challenge(s, plain, TNL_PT_ENC_CHALLENGE_RESPONSE, false);
	tnl_wipe(plain, sizeof(plain));
	s->challenge_acked = rc == 0;
	return rc;
}

static int in_complete(struct tnl_session *s, const struct tnl_msg *m, uint64_t now)
{
	if (s->seal && !s->challenge_acked)
		return refuse_because(s, TNL_EPROTO, "the agent ended the handshake without its encryption challenge");
	int rc = tnl_hs_complete_parse(m->payload, m->plen, &s->customer_message);
	if (rc)
		return refuse_because(s, rc, "bad handshake completion");
	tnl_session_hs_ready(s, now);
	return 0;
}

/* --- both --------------------------------------------------------------------------- */

int tnl_session_hs_message(struct tnl_session *s, const struct tnl_msg *m, uint64_t now)
{
	bool agent = s->cfg.agent;
	if (!agent && m->ptype == TNL_PT_HANDSHAKE_REQUEST && s->step == TNL_HS_WAIT_REQUEST)
		return in_request(s, m, now);
	if (!agent && m->ptype == TNL_PT_ENC_CHALLENGE_REQUEST && s->step == TNL_HS_WAIT_COMPLETE && s->seal &&
	    !s->challenge_acked)
		return in_challenge(s, m);
	if (!agent && m->ptype == TNL_PT_HANDSHAKE_COMPLETE && s->step == TNL_HS_WAIT_COMPLETE)
		return in_complete(s, m, now);
	if (agent && m->ptype == TNL_PT_HANDSHAKE_RESPONSE && s->step == TNL_HS_WAIT_RESPONSE)
		return in_response(s, m, now);
	if (agent && m->ptype == TNL_PT_ENC_CHALLENGE_RESPONSE && s->step == TNL_HS_WAIT_CHALLENGE)
		return in_challenge_answer(s, m, now);
	s->stats.unknown_payloads++; /* not the moment for it */
	return 0;
}

void tnl_session_kms_result(struct tnl_session *s, int err, const uint8_t *plaintext, size_t plen,
			    const uint8_t *ciphertext, size_t clen, const char *err_text, uint64_t now)
{
	if (tnl_session_over(s) || s->step != TNL_HS_WAIT_KMS)
		return;
	int rc = err;
	if (err)
		snprintf(s->why, sizeof(s->why), "KMS %s failed: %s", s->cfg.agent ? "Decrypt" : "GenerateDataKey",
			 err_text ? err_text : tnl_err_text(err));
	else if (plen != 64 || (!s->cfg.agent && (clen == 0 || clen > TNL_HS_CIPHERTEXT_MAX)))
		rc = refuse_because(s, TNL_ECRYPTO, "KMS gave a key of the wrong length");
	if (rc == 0)
		rc = tnl_session_seal_start(s, plaintext);
	if (rc == 0 && s->cfg.agent) {
		tnl_session_seal_challenge(s, s->challenge);
		rc = tnl_session_send_challenge(s, s->challenge, TNL_PT_ENC_CHALLENGE_REQUEST, true);
		if (rc == 0)
			set_step(s, TNL_HS_WAIT_CHALLENGE, now);
	} else if (rc == 0) {
		s->challenge_acked = false;
		rc = send_response(s, ciphertext, clen, now);
	}
	if (rc)
		s->failed = rc;
	if (s->depth == 0)
		tnl_session_settle(s);
}

void tnl_session_hs_sent(struct tnl_session *s, uint32_t ptype, uint64_t now)
{
	if (ptype == TNL_PT_HANDSHAKE_COMPLETE && s->cfg.agent)
		tnl_session_hs_ready(s, now);
}

static void fill_info(struct tnl_session *s)
{
	struct tnl_session_info *i = &s->info;
	i->peer_version = s->peer_version ? s->peer_version : "";
	i->session_type = s->session_type ? s->session_type : "Standard_Stream";
	i->customer_message = s->customer_message ? s->customer_message : "";
	i->properties_json = s->properties;
	i->own_peer = s->caps.present;
	i->direct = s->caps.direct;
	i->dial = s->caps.dial;
	i->peer_program = s->caps.present ? s->caps.program : "";
	i->links = TNL_MAX(s->caps.links, 1u);
	i->reverse = s->caps.reverse && i->mode == TNL_MODE_MUX;
	i->half_close = s->caps.half_close && (i->mode == TNL_MODE_MUX || i->mode == TNL_MODE_SINGLE);
	i->opens = s->caps.opens && i->half_close && i->mode == TNL_MODE_MUX;
	i->udp = carries_datagrams(s);
	i->encrypted = s->seal_data;
	i->smux_version = i->mode == TNL_MODE_MUX ? s->mux.version : 0;
	i->max_payload = s->caps.present ? s->caps.max_payload : TNL_MIN_PAYLOAD;
}

static void start_streams(struct tnl_session *s, uint64_t now)
{
	if (!s->cfg.agent) {
		tnl_list_foreach(it, &s->mux.streams) {
			struct tnl_stream *st = tnl_container_of(it, struct tnl_stream, all);
			if (st->id == 0 && s->mux.single != st)
				tnl_stream_start(st, now);
		}
	}
	if (s->cb.on_ready) {
		tnl_session_cb_enter(s);
		s->cb.on_ready(s->cfg.ctx, &s->info);
		tnl_session_cb_leave(s);
	}
	if (!s->cfg.agent || s->info.mode == TNL_MODE_MUX)
		return;
	/* One stream, there from the start: a target that speaks first is heard. */
	struct tnl_stream *st = tnl_stream_create(s, false, now);
	if (!st) {
		s->failed = TNL_ENOMEM;
		return;
	}
	s->mux.single = st;
	s->mux.had_single = true;
	tnl_stream_call_open(st);
}

void tnl_session_hs_ready(struct tnl_session *s, uint64_t now)
{
	bool shook = s->step != TNL_HS_WAIT_REQUEST && s->step != TNL_HS_IDLE, port = s->session_type && is_port(s);
	set_step(s, TNL_HS_DONE, now);
	s->state = TNL_SS_READY;
	/* Stock ends that have the key encrypt whatever the session carries; a stock agent asks for none on a port. */
	s->seal_data = s->seal && (!port || s->caps.encrypt || !s->caps.present);
	s->held = s->caps.direct == TNL_DIRECT_ONLY;
	s->mux.version = s->caps.present ? s->caps.smux : 1;
	fill_info(s);
	tnl_smux_parser_init(&s->mux.in, s->mux.version, s->info.half_close);
	s->mux.in.rst_words = s->caps.reset_words;
	s->mux.in.open = s->info.opens;
	s->mux.in.syn_words = !s->cfg.agent && s->info.reverse;
	if (s->cfg.agent)
		s->mux.next_id = 2;
	if (s->caps.present) {
		tnl_channel_set_max_payload(s->ch, s->caps.max_payload);
		tnl_channel_set_digest(s->ch, tnl_session_digest(s));
		if (s->caps.link_queue)
			tnl_channel_ask_hop(s->ch);
	}
	if (shook && !s->caps.present)
		s->hold_until = now + (s->cfg.agent ? AFTER_COMPLETE_HOLD : s->cfg.hold_after_complete_ns);
	s->keepalive_ns = s->cfg.keepalive_ns;
	if (!shook || s->info.mode != TNL_MODE_MUX || s->caps.present)
		s->peer_keepalive = false;
	if (s->peer_keepalive && (s->keepalive_ns == 0 || s->keepalive_ns > OLD_SMUX_KEEPALIVE))
		s->keepalive_ns = OLD_SMUX_KEEPALIVE; /* or it takes the session for dead after 30 s */
	if ((s->info.mode == TNL_MODE_MUX || !s->cfg.agent) && s->keepalive_ns)
		s->keepalive_at = now + s->keepalive_ns;
	tnl_log(TNL_LOG_DEBUG, "session",
		"session=%s ready type=%s mode=%s peer=%.40s own_peer=%d encrypted=%d smux=%d payload=%zu crc32c=%d",
		s->cfg.session_id, s->info.session_type, tnl_session_mode_name(s->info.mode), s->info.peer_version,
		s->info.own_peer, s->info.encrypted, s->info.smux_version, s->info.max_payload, s->caps.crc32c);
	start_streams(s, now);
}

void tnl_session_hs_fini(struct tnl_session *s)
{
	tnl_hs_request_fini(&s->req);
	tnl_wipe(s->challenge, sizeof(s->challenge));
	tnl_free(s->peer_version);
	tnl_free(s->session_type);
	tnl_free(s->properties);
	tnl_free(s->customer_message);
	s->peer_version = s->session_type = s->properties = s->customer_message = NULL;
}
