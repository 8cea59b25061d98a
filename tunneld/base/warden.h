/* A warden: the small process between us and a child of ours, which answers for all that the child leaves behind.
 *
 *   we ── channel ── warden ── child ── …          it is the reaper of every process below it, whatever session or
 *                      └─ what lost its parent     group that put itself into
 *
 *   warden to us    STARTED pid, or REFUSED errno; EXITED status; LEFT pid: a process that it may not kill
 *   us to warden    SIGNAL number, for the child's process group
 *   our end closed  the end: SIGHUP to what is there, SIGKILL 4 s later until nothing is left; then it ends itself
 *
 * It outlives us when it must, so that our end ends them too. */
#ifndef TD_BASE_WARDEN_H
#define TD_BASE_WARDEN_H
#include <sys/types.h>

#define TD_WARDEN_KILL_MS 4000

enum td_warden_kind {
	TD_WARDEN_STARTED = 1,
	TD_WARDEN_REFUSED,
	TD_WARDEN_EXITED,
	TD_WARDEN_LEFT,
	TD_WARDEN_SIGNAL,
};
struct td_warden_word {
	int kind, value;
	int error;	/* LEFT: why */
	char text[200]; /* REFUSED: for people, or empty */
};
enum { TD_WARDEN_GIVE_MAX = 2 };

struct td_child_spec;
/* Forks one, with its child, at the far end of channel (SOCK_SEQPACKET), which stays the caller's to close. give: what
 * goes along with STARTED. Its number, or -1 and errno: nobody will say anything on the channel. */
pid_t td_warden_fork(const struct td_child_spec *s, int channel, const int *give, int ngive);
/* In its place, when there is no child to be had. */
void td_warden_refuse(int channel, int err, const char *text);

#endif
