/* The agent's half of the key exchange: KMS decrypts what the client had made. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"

#include <string.h>

#define KEY_LEN 64

static void report_failure(struct ag_session *s, int err, const char *why)
{
	tnl_session_kms_result(td_pump_session(s->pump), err, NULL, 0, NULL, 0, why, s->a->loop->now);
	td_pump_kick(s->pump);
}

static void on_decrypted(void *ctx, const struct td_aws_reply *r)
{
	struct ag_session *s = ctx;
	uint8_t key[KEY_LEN + 2];

	s->kms = NULL;
	if (r->err) {
		char why[300];
		snprintf(why, sizeof(why), "kms:Decrypt: %s%s%s", r->type[0] ? r->type : tnl_err_text(r->err),
			 r->text && *r->text ? ": " : "", r->text ? r->text : "");
		report_failure(s, r->err, why);
		return;
	}
	const char *text = tnl_json_get_str(r->json, "Plaintext");
	int n = text ? tnl_unb64(text, strlen(text), key, sizeof(key)) : TNL_ESYNTAX;
	if (n == KEY_LEN) {
		tnl_session_kms_result(td_pump_session(s->pump), 0, key, KEY_LEN, NULL, 0, NULL, s->a->loop->now);
		td_pump_kick(s->pump);
	} else {
		report_failure(s, TNL_ESYNTAX, "kms:Decrypt: the response has no 64-byte key");
	}
	tnl_wipe(key, sizeof(key));
}

static int request_body(const struct ag_session *s, const struct tnl_kms_request *r, struct tnl_buf *b)
{
	struct tnl_jw w;
	char *blob = tnl_malloc(TNL_B64_LEN(r->ciphertext_len) + 1);

	if (!blob)
		return TNL_ENOMEM;
	tnl_b64(r->ciphertext, r->ciphertext_len, blob);
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "CiphertextBlob", blob);
	tnl_jw_key(&w, "EncryptionContext");
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "aws:ssm:SessionId", s->start.session_id);
	tnl_jw_kv(&w, "aws:ssm:TargetId", s->target);
	if (r->challenge)
		tnl_jw_kv(&w, "aws:ssm:RandomChallenge", r->challenge);
	tnl_jw_end_obj(&w);
	if (r->key_id)
		tnl_jw_kv(&w, "KeyId", r->key_id);
	tnl_jw_end_obj(&w);
	tnl_free(blob);
	return b->failed ? TNL_ELIMIT : 0;
}

void ag_kms_request(struct ag_session *s, const struct tnl_kms_request *r)
{
	struct tnl_buf body;

	if (s->state == AG_S_ENDING)
		return;
	tnl_buf_init(&body, 64 * 1024);
	if (!s->kms && !request_body(s, r, &body))
		s->kms = td_aws_json(s->a->aws, "kms", "TrentService.Decrypt", (const char *)tnl_buf_data(&body),
				     tnl_buf_len(&body), 3, on_decrypted, s);
	tnl_buf_fini(&body);
	if (!s->kms)
		report_failure(s, TNL_ENOMEM, "the agent is out of memory");
}
