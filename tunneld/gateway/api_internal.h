/* Inside of the gateway: the operations, each answers its call. */
#ifndef TD_GATEWAY_API_INTERNAL_H
#define TD_GATEWAY_API_INTERNAL_H
#include "tunneld/gateway/rate_internal.h"

void gw_op_start_session(struct gw_call *c);
void gw_op_resume_session(struct gw_call *c);
void gw_op_open_session_link(struct gw_call *c);
void gw_op_terminate_session(struct gw_call *c);
void gw_op_describe_sessions(struct gw_call *c);
void gw_op_describe_instances(struct gw_call *c);
void gw_op_connection_status(struct gw_call *c);
void gw_op_update_instance(struct gw_call *c);
void gw_op_list_associations(struct gw_call *c);
void gw_op_get_messages(struct gw_call *c);
void gw_op_agent_nothing(struct gw_call *c);
void gw_op_generate_data_key(struct gw_call *c);
void gw_op_decrypt(struct gw_call *c);

#endif
