/* What a client does on its session's events: ready, lost, closed, keys wanted. */
#include "tunneld/client/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

/* ---- what the pump reports --------------------------------------------------------------- */

void td_client_tell_ended(void *arg)
{
	struct td_client *c = arg;
	td_timer_stop(&c->retry);
	if (c->cb->ended)
		c->cb->ended(c->ctx);
}

void td_client_tell_ready(struct td_client *c)
{
	c->was_ready = true;
	td_client_set_state(c, TD_CLIENT_UP);
	if (c->cb->ready)
		c->cb->ready(c->ctx, tnl_session_info(td_pump_session(c->pump)));
}

static void pump_ready(void *ctx, const struct tnl_session_info *info)
{
	struct td_client *c = ctx;

	td_info(
	    MOD, c->grant.session_id,
	    "session ready %-s mode=%s peer_version=%s program=%s own_peer=%d smux=%d max_payload=%zu encrypted=%d ms=%llu",
	    c->cfg.label, tnl_session_mode_name(info->mode), info->peer_version,
	    info->peer_program[0] ? info->peer_program : "-", info->own_peer, info->smux_version, info->max_payload,
	    info->encrypted, (unsigned long long)((c->loop->now - c->started_at) / TD_MS));
	if (info->customer_message && info->customer_message[0])
		td_info(MOD, c->grant.session_id, "message from the far end text=\"%s\"", info->customer_message);
	if (td_client_direct_ready(c))
		td_client_tell_ready(c);
	td_client_links_ready(c);
}

static void pump_lost(void *ctx, int err, uint16_t code, const char *why)
{
	struct td_client *c = ctx;

	if (c->state == TD_CLIENT_ENDING) {
		td_client_tell_ended(c);
		return;
	}
	if (td_pump_links(c->pump)) {
		td_info(MOD, c->grant.session_id,
			"main link lost, the session goes on with others %-s code=%u reason=\"%s\" links=%u",
			c->cfg.label, code, why ? why : "", td_pump_links(c->pump));
		td_backoff_up(&c->backoff, c->loop->now - c->link_up_at);
		td_client_resume_later(c);
		return;
	}
	/* About every hour AWS closes with 1000: nothing to worry about. */
	td_log(code == 1000 ? TNL_LOG_INFO : TNL_LOG_WARN, MOD, c->grant.session_id,
	       "data channel lost, resuming %-s code=%u error=\"%s\" reason=\"%s\" streams=%zu", c->cfg.label, code,
	       tnl_err_text(err), why, td_pump_pipes(c->pump));
	td_client_note(c, "data channel lost", why ? why : "");
	td_backoff_up(&c->backoff, c->loop->now - c->link_up_at);
	if (td_pump_progress(c->pump) != c->progress)
		td_backoff_forget(&c->backoff);
	if (!td_client_direct_carries(c))
		td_client_set_state(c, TD_CLIENT_RESUMING);
	td_client_resume_later(c);
}

static void pump_closed(void *ctx, int err, const char *text)
{
	struct td_client *c = ctx;

	if (c->state == TD_CLIENT_ENDING) {
		td_client_tell_ended(c);
		return;
	}
	if (!c->was_ready) {
		char why[400];
		snprintf(why, sizeof(why), "session: %s", text[0] ? text : tnl_err_text(err));
		td_client_fail(c, err, "", why);
		return;
	}
	td_log(err == TNL_ECLOSED ? TNL_LOG_INFO : TNL_LOG_ERROR, MOD, c->grant.session_id,
	       "session is over %-s cause=\"%s\" text=\"%s\"", c->cfg.label, tnl_err_text(err), text);
	td_client_set_state(c, TD_CLIENT_ENDING);
	td_timer_stop(&c->retry);
	td_client_direct_stop(c);
	c->cb->over(c->ctx, err, text);
}

static void pump_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct td_client *c = ctx;
	if (c->cb->pipe_closed)
		c->cb->pipe_closed(c->ctx, p, user, reason, in, out);
}

static void pump_connected(void *ctx, struct td_pipe *p, void *user)
{
	struct td_client *c = ctx;
	if (c->cb->connected)
		c->cb->connected(c->ctx, p, user);
}

static void pump_drained(void *ctx, struct td_pipe *p, void *user)
{
	struct td_client *c = ctx;
	if (c->cb->drained)
		c->cb->drained(c->ctx, p, user);
}

static void pump_open(void *ctx, struct tnl_stream *st)
{
	struct td_client *c = ctx;
	if (c->cb->open && c->state != TD_CLIENT_ENDING)
		c->cb->open(c->ctx, st);
	else
		td_pump_refuse(c->pump, st, TNL_RESET_SHUTDOWN, "");
}

static void pump_cancelled(void *ctx, struct tnl_stream *st)
{
	struct td_client *c = ctx;
	if (c->cb->cancelled)
		c->cb->cancelled(c->ctx, st);
}

static void pump_reverse(void *ctx, const struct tnl_reverse *word)
{
	struct td_client *c = ctx;
	if (c->cb->reverse && c->state != TD_CLIENT_ENDING)
		c->cb->reverse(c->ctx, word);
}

static void pump_flag(void *ctx, uint32_t flag)
{
	struct td_client *c = ctx;
	if (flag == TNL_FLAG_CONNECT_ERROR)
		td_warn(MOD, c->grant.session_id, "the target refused a connection %-s", c->cfg.label);
	if (flag == TNL_FLAG_LOSSY || flag == TNL_FLAG_FULL)
		td_client_links_bulk(c, flag == TNL_FLAG_LOSSY ? TD_BULK_LOSSY : TD_BULK_FULL);
	else if (c->cb->flag)
		c->cb->flag(c->ctx, flag);
}

static void pump_exit_code(void *ctx, int code)
{
	struct td_client *c = ctx;
	if (c->cb->exit_code)
		c->cb->exit_code(c->ctx, code);
}

/* ---- GenerateDataKey -------------------------------------------------------------------------- */

static void on_data_key(void *ctx, const struct td_aws_reply *r)
{
	struct td_client *c = ctx;
	struct tnl_session *ses = td_pump_session(c->pump);
	uint8_t plain[128], cipher[8192];
	const char *p = r->err ? NULL : tnl_json_get_str(r->json, "Plaintext");
	const char *e = r->err ? NULL : tnl_json_get_str(r->json, "CiphertextBlob");
	int pn = p ? tnl_unb64(p, strlen(p), plain, sizeof(plain)) : -1;
	int en = e ? tnl_unb64(e, strlen(e), cipher, sizeof(cipher)) : -1;

	c->kms = NULL;
	if (pn == 64 && en > 0)
		tnl_session_kms_result(ses, 0, plain, 64, cipher, (size_t)en, NULL, c->loop->now);
	else
		tnl_session_kms_result(ses, r->err ? r->err : TNL_ESYNTAX, NULL, 0, NULL, 0,
				       r->err && r->text && r->text[0] ? r->text
								       : "GenerateDataKey gave no 64-byte key",
				       c->loop->now);
	tnl_wipe(plain, sizeof(plain));
	td_pump_kick(c->pump);
}

static void pump_kms(void *ctx, const struct tnl_kms_request *r)
{
	struct td_client *c = ctx;
	struct tnl_buf b;
	struct tnl_jw w;

	if (c->kms)
		td_aws_call_cancel(c->kms);
	tnl_buf_init(&b, 16 * 1024);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "KeyId", r->key_id);
	tnl_jw_kvi(&w, "NumberOfBytes", 64);
	tnl_jw_key(&w, "EncryptionContext");
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "aws:ssm:SessionId", c->grant.session_id);
	tnl_jw_kv(&w, "aws:ssm:TargetId", c->find.id);
	if (r->challenge)
		tnl_jw_kv(&w, "aws:ssm:RandomChallenge", r->challenge);
	tnl_jw_end_obj(&w);
	tnl_jw_end_obj(&w);
	c->kms = td_aws_json(c->cfg.aws, "kms", "TrentService.GenerateDataKey", (const char *)tnl_buf_data(&b),
			     tnl_buf_len(&b), 3, on_data_key, c);
	tnl_buf_fini(&b);
	if (!c->kms) {
		tnl_session_kms_result(td_pump_session(c->pump), TNL_ENOMEM, NULL, 0, NULL, 0, "out of memory",
				       c->loop->now);
		td_pump_kick(c->pump);
	}
}

static void pump_bulk(void *ctx, enum td_bulk kind)
{
	td_client_links_bulk(ctx, kind);
}

static void pump_link_lost(void *ctx, unsigned index)
{
	td_client_links_lost(ctx, index);
}

static void pump_direct_word(void *ctx, const struct tnl_direct *d)
{
	td_client_direct_word(ctx, d);
}

static void pump_direct_lost(void *ctx, int err, const char *why)
{
	td_client_direct_lost(ctx, err, why);
}

static const struct td_pump_cb pump_cb = {
    .direct_word = pump_direct_word,
    .direct_lost = pump_direct_lost,
    .bulk = pump_bulk,
    .link_lost = pump_link_lost,
    .ready = pump_ready,
    .lost = pump_lost,
    .closed = pump_closed,
    .pipe_closed = pump_pipe_closed,
    .drained = pump_drained,
    .connected = pump_connected,
    .open = pump_open,
    .cancelled = pump_cancelled,
    .reverse = pump_reverse,
    .flag = pump_flag,
    .exit_code = pump_exit_code,
    .kms = pump_kms,
};

bool td_client_make_pump(struct td_client *c)
{
	c->cfg.session.session_id = c->grant.session_id;
	c->pump = td_pump_new(c->loop, &c->cfg.session, &pump_cb, c);
	return c->pump != NULL;
}
