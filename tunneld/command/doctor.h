/* tunneld doctor: the way of a tunnel tested step by step.
 *
 *   doctor          which checks, in which order, for which roles; the exit code
 *   doctor_bundle   what is handed to somebody else: a tar without secrets
 *   doctor_session  StartSession, target, StreamUrl, WebSocket, dial, echo
 *   doctor_keys     credentials
 *   doctor_net      clock, names, connections, TLS of the endpoints
 *   doctor_gateway  certificate, store and nodes of a gateway
 *   doctor_local    listen addresses, descriptors, memory, what runs
 *   doctor_rows     rows, waiting
 *
 * Each calls only those below it.  A check waits for its answers in td_doctor_wait, which runs the loop. */
#ifndef TD_COMMAND_DOCTOR_H
#define TD_COMMAND_DOCTOR_H
#include "lib/json.h"
#include "tunneld/aws/aws.h"
#include "tunneld/command/command.h"
#include "tunneld/command/progress.h"

#include <stdio.h>

#define TD_DOCTOR_PROBE_NS (5 * TD_SEC) /* for each question */

enum td_doctor_result { TD_DOCTOR_OK, TD_DOCTOR_WARN, TD_DOCTOR_FAIL, TD_DOCTOR_SKIPPED };

struct td_doctor_row {
	const char *check; /* "clock", …: static */
	char subject[128]; /* the tunnel; "": of all */
	enum td_doctor_result result;
	char fact[600];
	char advice[300]; /* what to do, one sentence; "": nothing */
};
struct td_doctor {
	struct td_loop *loop;
	struct td_config *cfg; /* NULL: it could not be read */
	const char *file;      /* -c */
	char *path;	       /* of the configuration; NULL: none */
	const char *subject;   /* the tunnel that is being tested; "" */
	struct td_doctor_row *rows;
	size_t nrows;
	int code;  /* of the first that failed; 0: none did */
	bool live; /* each row is printed when it is there */
	bool colour, utf8;
	bool interrupted; /* by a signal */
	struct td_progress progress;
	struct tnl_buf status;	/* documents of what runs with the configuration, an array */
	struct tnl_buf secrets; /* texts that must not get out, each with its NUL */
};

/* --- doctor_rows.c --- */
extern const char *const td_doctor_results[];
bool td_doctor_open(struct td_doctor *d); /* the rest of it zeroed, or set already */
void td_doctor_close(struct td_doctor *d);
/* code: of the command's, should it be the first that fails.  advice NULL: none. */
void td_doctor_row(struct td_doctor *d, const char *check, enum td_doctor_result result, int code, const char *advice,
		   const char *fmt, ...) __attribute__((format(printf, 6, 7)));
void td_doctor_json(const struct td_doctor *d, struct tnl_buf *b);
/* Runs the loop until *done, or ns have passed, or a signal has come: *done. */
bool td_doctor_wait(struct td_doctor *d, const bool *done, uint64_t ns, const char *what);
void td_doctor_done(struct td_doctor *d, bool *done); /* from a callback: *done, and the loop returns */
/* It is blanked wherever it stands in what the bundle holds; NULL and short ones are nothing. */
void td_doctor_secret(struct td_doctor *d, const char *text);

/* --- doctor_net.c --- */
/* Of each endpoint that these services have.  Gives whether all can be reached by TLS. */
bool td_doctor_net(struct td_doctor *d, struct td_aws *aws, const char *const *services, int n);

/* --- doctor_keys.c --- */
/* whose: STS is asked for the account.  Are there any? */
bool td_doctor_credentials(struct td_doctor *d, struct td_aws *aws, bool whose);

/* --- doctor_session.c: the rows of a tunnel or an alias, from its credentials on --- */
/* reachable: what td_doctor_net gave. */
void td_doctor_session(struct td_doctor *d, struct td_aws *aws, const struct td_tunnel_config *t, bool reachable);

/* --- doctor_local.c --- */
void td_doctor_running(struct td_doctor *d); /* fills status; no row */
void td_doctor_listen(struct td_doctor *d, const struct td_addr *addrs, int n);
void td_doctor_limits(struct td_doctor *d);
void td_doctor_agent_state(struct td_doctor *d);
struct tnl_json *td_doctor_status(const struct td_doctor *d); /* what td_doctor_running found, an array; NULL */

/* --- doctor_gateway.c --- */
void td_doctor_gateway(struct td_doctor *d);

/* --- doctor_bundle.c --- */
int td_doctor_bundle(struct td_doctor *d, const char *path); /* 0, or an exit code after a line on stderr */

#endif
