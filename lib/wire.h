/* JSON and XML payloads of the control and data channels: writers and readers.
 * Readers borrow nothing: fixed fields or heap copies freed with _fini. */
#ifndef TNL_WIRE_H
#define TNL_WIRE_H
#include "lib/buf.h"
#include "lib/json.h"
#include <stdbool.h>
#include <stdint.h>

/* The most that is kept of what a peer says: longer names are refused, longer texts for people lose their end.  Written
 * anew, with each byte escaped, a text still fits into whatever passes it on. */
#define TNL_WORD_MAX 128u  /* versions, states, UUIDs */
#define TNL_NAME_MAX 512u  /* ids of sessions and targets, documents, users */
#define TNL_ARN_MAX 2048u  /* as AWS bounds KMS key ids */
#define TNL_TEXT_MAX 1024u /* Output, failure messages: as AWS bounds the details of a session */
#define TNL_TOKEN_MAX 4096u

/* First TEXT frame of a data or control channel. NULL fields are left out on writing. */
struct tnl_open {
	char *request_id, *token, *client_id, *client_version; /* client */
	char *client_instance_id;			       /* agent data channel */
	char *agent_version, *platform_type;		       /* agent control channel */
};
int tnl_open_write(struct tnl_buf *b, const struct tnl_open *o);
int tnl_open_parse(const void *p, size_t n, struct tnl_open *o, const char **fault) TNL_MUST_USE; /* TNL_ESYNTAX */
void tnl_open_fini(struct tnl_open *o); /* frees what parse gave; wipes the token */

/* POST body of channel creation: {"MessageSchemaVersion","RequestId","ClientId"}; the answer's XML. */
int tnl_create_write(struct tnl_buf *b, const char *request_id, const char *client_id /* NULL: control channel */,
		     unsigned link /* 0: the main one */);
int tnl_create_reply_write(struct tnl_buf *b, const char *root, const char *token);
/* Small strict XML reader; TNL_ESYNTAX. */
int tnl_create_reply_parse(const void *p, size_t n, char **token) TNL_MUST_USE;
/* The same reader for answers of the query APIs: the text of the first element of each name, wherever it stands; heap,
 * NULL: there is none. */
#define TNL_XML_TEXTS 8
int tnl_xml_texts(const void *p, size_t n, const char *const names[], char *texts[], size_t count) TNL_MUST_USE;
void tnl_xml_texts_fini(char *texts[], size_t count); /* wiped */

/* channel_closed */
struct tnl_channel_closed {
	char *message_id, *session_id, *destination_id, *output;
	uint64_t created_ms;
};
int tnl_channel_closed_write(struct tnl_buf *b, const struct tnl_channel_closed *c);
int tnl_channel_closed_parse(const void *p, size_t n, struct tnl_channel_closed *c) TNL_MUST_USE;
void tnl_channel_closed_fini(struct tnl_channel_closed *c);

/* interactive_shell: the start of a session as the agent receives it (keys without regard to case). */
/* What a gateway of ours lets a session do beyond what its document says; others say nothing. */
struct tnl_start_grants {
	bool reverse; /* the agent may listen for its client */
	bool dial;    /* its streams may go anywhere: no right of its user stands on host or port */
};
struct tnl_start {
	char *session_id, *document_name, *session_type, *session_owner, *run_as;
	char *properties_json; /* after {{ parameter }} substitution, compact */
	char *kms_key_id;      /* from inputs; NULL none */
	char *inputs_json;     /* NULL none */
	struct tnl_start_grants grants;
};
/* content: ready JSON of DocumentContent and Parameters from the gateway's document table. */
int tnl_start_write(struct tnl_buf *b, const char *session_id, const char *document_name,
		    const char *document_content_json, const char *parameters_json, const char *owner,
		    const char *run_as, const struct tnl_start_grants *grants /* NULL: none */);
/* What a service calls a session: nothing that would be more than a name in a path, a log or a file. */
bool tnl_session_id_ok(const char *s, size_t max);
int tnl_start_parse(const void *p, size_t n, struct tnl_start *s, const char **fault) TNL_MUST_USE;
void tnl_start_fini(struct tnl_start *s);

/* agent_session_state, agent_task_complete, agent_task_acknowledge, start/pause_publication payloads */
int tnl_state_write(struct tnl_buf *b, const char *state, const char *session_id);
struct tnl_task {
	char *task_id, *topic, *final_status, *output, *instance_id, *message_id;
};
int tnl_task_complete_write(struct tnl_buf *b, const char *session_id, const char *instance_id, const char *status,
			    const char *output, int retry);
int tnl_task_parse(const void *p, size_t n, struct tnl_task *t) TNL_MUST_USE; /* complete and acknowledge */
int tnl_task_ack_write(struct tnl_buf *b, const char *message_id, const char *task_id, const char *topic);
void tnl_task_fini(struct tnl_task *t);
int tnl_publication_write(struct tnl_buf *b, const char *session_id);

/* Version compare of dotted numbers: <0, 0, >0; false in *ok unless exactly four numbers. */
int tnl_version_cmp(const char *a, const char *b, bool *ok);

#endif
